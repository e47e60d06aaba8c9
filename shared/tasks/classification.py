"""One of several classes for each case: softmax, cross-entropy, exactly mergeable statistics.

Legend of shapes: B cases in a batch; C classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedcad.shared.config.study import StudyConfig
from fedcad.shared.errors import DataError
from fedcad.shared.metrics.interface import Statistics, StatisticsFamily
from fedcad.shared.metrics.registry import statistics_for
from fedcad.shared.tasks.interface import Batch, Findings, Networks, Objective

NETWORK = "classifier"
LONGEST_LABEL_SHOWN = 64


class Classification:
    """Classification of images into the classes of a study.

    Batches hold ``image`` float32 (B, 1, size, size) among the inputs and ``label`` int64 (B,) among the
    targets.
    """

    statistics: StatisticsFamily

    def __init__(self, study: StudyConfig) -> None:
        """Take classes, network, loss and optimizer from a study."""
        self.statistics = statistics_for(study)
        self._study = study
        self._classes = study.task.classes
        self._class_weights = torch.tensor(
            study.training.class_weights or (1.0,) * len(self._classes), dtype=torch.float32
        )

    def networks(self) -> dict[str, nn.Module]:
        """Build the untrained ``classifier``; draws from torch's global generator."""
        # Here, not above: parsing labels or counting statistics must not need the networks' libraries.
        from fedcad.shared.models.registry import build_model

        study = self._study
        classes, size = len(self._classes), study.preprocessing.size
        return {NETWORK: build_model(study.model, classes=classes, size=size, channels=1)}

    def objectives(self) -> tuple[Objective, ...]:
        """Return the one objective: cross-entropy of the classifier."""
        return (
            Objective(
                name="cross_entropy",
                networks=(NETWORK,),
                optimizer=self._study.training.optimizer,
                losses=self._losses,
            ),
        )

    def predict(self, networks: Networks, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the probabilities of the classes.

        Args:
            networks: The ``classifier``, in evaluation mode.
            inputs: ``image`` float32 (B, 1, size, size).

        Returns:
            float32, shape (B, C), rows summing to 1.

        Raises:
            ValueError: The classifier is in training mode, in which dropout and batch normalisation would
                make one case's probabilities random or depend on the other cases.
        """
        network = networks[NETWORK]
        if network.training:
            raise ValueError("the classifier is in training mode; call eval() on it before predicting")
        logits: Tensor = network(inputs["image"])
        return torch.softmax(logits.float(), dim=1)

    def infer(self, networks: Networks, case: Mapping[str, Tensor]) -> Findings:
        """Return the probability of each class for one case.

        Args:
            networks: The ``classifier``, in evaluation mode.
            case: ``image`` float32 (1, size, size), no case axis.

        Raises:
            ValueError: The classifier is in training mode.
        """
        with torch.no_grad():
            row = self.predict(networks, {"image": case["image"].unsqueeze(0)})[0]
        return Findings(probabilities=dict(zip(self._classes, row.tolist(), strict=True)))

    def targets(self, labels: Sequence[str]) -> dict[str, Tensor]:
        """Return ``label``, the numbers of classes, int64, shape (len(labels),).

        Raises:
            DataError: A label is not one of the study's classes.
        """
        return {"label": torch.tensor([self.parse_label(label) for label in labels], dtype=torch.int64)}

    def collect(
        self, outputs: NDArray[np.float32], targets: Mapping[str, Tensor], weights: NDArray[np.int64]
    ) -> Statistics:
        """Return the statistics of N cases.

        Args:
            outputs: Probabilities, shape (N, C).
            targets: ``label`` int64 (N,).
            weights: Non-negative integer weights, shape (1 + R, N), for R bootstrap replicates.

        Returns:
            int64, shape (1 + R, statistics.size).
        """
        return self.statistics.collect(outputs, targets["label"].numpy(), weights)

    def parse_label(self, label: str) -> int:
        """Return the number of a class from its name, exactly as written in the study.

        Raises:
            DataError: The label is not one of the study's classes.
        """
        if label not in self._classes:
            raise DataError(
                f"label {label[:LONGEST_LABEL_SHOWN]!r} is not a class of the study; expected one of "
                f"{', '.join(self._classes)}. Correct the label table, or add the class to task.classes"
            )
        return self._classes.index(label)

    def _losses(self, networks: Networks, batch: Batch) -> Tensor:
        """Return cross-entropy of each case times the fixed weight of its class, shape (B,).

        torch's own class weights are not used: its mean divides by the weights that happen to be in the
        batch, which couples the cases, and it applies them inside label smoothing class by class.
        """
        labels = batch.targets["label"]
        logits = networks[NETWORK](batch.inputs["image"]).float()
        smoothing = self._study.training.label_smoothing
        losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        # Kept where the networks are: a copy to a GPU in every step would wait for it each time.
        self._class_weights = self._class_weights.to(losses.device)
        return losses * self._class_weights[labels]
