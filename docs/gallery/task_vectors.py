"""Two skills in one model: add what each fine-tuning learned to their common base.

One network learns all digits badly; two copies are tuned, one on the even and one on
the odd digits. Their task vectors, added to the base, give a model that is better on
all digits than either.
"""

import torch

import isthmus

data = isthmus.load_data("digits")
module = isthmus.resolve("mlp-64x1", inputs=data.shape, classes=data.classes)
network = isthmus.Network.of(module)


def tuned(start, chosen, steps, rate):
    module.load_state_dict(start)
    optimiser = torch.optim.SGD(module.parameters(), rate)
    for _ in range(steps):
        optimiser.zero_grad()
        outputs = module(data.train_inputs[chosen])
        torch.nn.functional.cross_entropy(
            outputs, data.train_targets[chosen]
        ).backward()
        optimiser.step()
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


everything = torch.ones_like(data.train_targets, dtype=torch.bool)
even = data.train_targets % 2 == 0
base = tuned(module.state_dict(), everything, steps=15, rate=0.2)
experts = [tuned(base, even, 40, 0.1), tuned(base, ~even, 40, 0.1)]
merged = isthmus.TaskArithmetic(scale=0.8)(experts, base=base)

objective = isthmus.Objective(network, data.test_inputs, data.test_targets)
errors = [objective(weights).error for weights in (base, *experts, merged)]
print("error of base, even, odd, merged:", [round(error, 3) for error in errors])
assert errors[3] < min(errors[:3])
