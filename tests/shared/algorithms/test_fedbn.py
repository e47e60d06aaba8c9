"""FedBN: what stays at the site. Its rounds are tested with real networks in tests/end_to_end."""

from fedcad.shared.algorithms.fedbn import FedBN
from fedcad.shared.config.study import FedBNConfig
from fedcad.shared.layout import Entry, Layout, Norm, Role

ENTRIES = (
    Entry("n/convolution.weight", (2, 1), "float32", Role.TRAINED),
    Entry("n/batch.weight", (2,), "float32", Role.TRAINED, Norm.BATCH),
    Entry("n/batch.running_mean", (2,), "float32", Role.BUFFER, Norm.BATCH),
    Entry("n/batch.num_batches_tracked", (), "int64", Role.BUFFER, Norm.BATCH),
    Entry("n/group.bias", (2,), "float32", Role.TRAINED, Norm.GROUP),
    Entry("n/instance.bias", (2,), "float32", Role.TRAINED, Norm.INSTANCE),
    Entry("n/layer.bias", (2,), "float32", Role.TRAINED, Norm.LAYER),
    Entry("n/norm_by_name_only.bias", (2,), "float32", Role.TRAINED),
)


def test_parameters_and_buffers_of_every_norm_are_personal_and_nothing_else() -> None:
    algorithm = FedBN(FedBNConfig(name="fedbn"))
    assert algorithm.personal(Layout(ENTRIES)) == {entry.name for entry in ENTRIES[1:7]}
    assert algorithm.weights(5) == {"model": 5}
    assert algorithm.init_site(Layout(ENTRIES)) == {}
