"""Every private name of flwr that FedCAD uses, and nothing else of FedCAD.

flwr has no public way to serve the Fleet API apart from its Control API, to refuse bundles by hash, to hear
why a node cannot connect, or to keep task tokens out of process lists. This package reaches inside for that;
it works with one version of flwr only, and its contract tests fail loudly on any other.

A module of it loads much of flwr (0.3 to 0.8 s, 50 to 100 MB): import it in the function that needs it.
"""
