import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedcad.simulations.phantom.patients import draw_patient


@given(seed=st.integers(0, 2**40))
def test_drawing_is_reproducible_and_plausible(seed: int) -> None:
    patient = draw_patient(np.random.default_rng(seed))
    assert patient == draw_patient(np.random.default_rng(seed))
    assert 22 <= patient.age_years <= 88
    assert 0.4 <= patient.cardiothoracic_ratio <= 0.56
    assert 0.03 <= patient.texture <= 0.1
    assert patient.rib_density > 0.5


def test_patients_differ_in_habitus() -> None:
    patients = [draw_patient(np.random.default_rng(seed)) for seed in range(300)]
    women = [patient.stature for patient in patients if patient.sex == "female"]
    men = [patient.stature for patient in patients if patient.sex == "male"]
    assert 90 < len(women) < 200
    assert np.mean(women) + 0.05 < np.mean(men)
    assert len({patient.anatomy_seed for patient in patients}) == 300
