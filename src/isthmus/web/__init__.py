"""The store in a browser: pages made on this machine, read-only unless told otherwise."""
