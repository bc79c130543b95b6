"""How uncertain the objective itself is: redundant copies, noisy gradients and labels, and where SGD settles."""

from isthmus.noise.activity import silent_units, writing_axes
from isthmus.noise.gradient_noise import GradientNoise, InEigenbasis, LayerSignal, gradient_noise
from isthmus.noise.gradient_spread import (
    gradient_under_augmentation,
    gradient_under_label_noise,
    gradient_under_resampling,
)
from isthmus.noise.label_noise import LabelNoise, divided, label_noise, out_of_fold
from isthmus.noise.minimum import Settled, check_minimum, settled
from isthmus.noise.per_example import PerExampleGradients
from isthmus.noise.redundancy import (
    EffectiveRedundancy,
    GroupIdentity,
    GroupRedundancy,
    Redundancy,
    effective_redundancy,
    redundancy,
)
from isthmus.noise.resampling import (
    MetricChoice,
    Spread,
    flipped,
    metric_choice,
    under_augmentation,
    under_label_noise,
    under_resampling,
)
from isthmus.noise.stationary import Stationary, predicted_variance, stationary
from isthmus.noise.walkers import Bowl, Sampled, Shaken, drawn_labels, teaching

__all__ = [
    "Bowl",
    "EffectiveRedundancy",
    "GradientNoise",
    "GroupIdentity",
    "GroupRedundancy",
    "InEigenbasis",
    "LabelNoise",
    "LayerSignal",
    "MetricChoice",
    "PerExampleGradients",
    "Redundancy",
    "Sampled",
    "Settled",
    "Shaken",
    "Spread",
    "Stationary",
    "check_minimum",
    "divided",
    "drawn_labels",
    "effective_redundancy",
    "flipped",
    "gradient_noise",
    "gradient_under_augmentation",
    "gradient_under_label_noise",
    "gradient_under_resampling",
    "label_noise",
    "metric_choice",
    "out_of_fold",
    "predicted_variance",
    "redundancy",
    "settled",
    "silent_units",
    "stationary",
    "teaching",
    "under_augmentation",
    "under_label_noise",
    "under_resampling",
    "writing_axes",
]
