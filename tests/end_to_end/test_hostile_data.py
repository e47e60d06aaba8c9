"""Image folders as people have them: other labels, sizes, depths and colours, and all that can be wrong."""

import csv

import numpy as np
import pytest
import tiny_study
from PIL import Image

from fedcad.shared.errors import DataError

CLASSES = ("healthy", "covid19")


def picture(number, label, *, mode="L", size=(70, 60)):
    """Return an image with a bright disc where there is a finding."""
    generator = np.random.default_rng(number)
    rows, columns = np.mgrid[: size[1], : size[0]]
    values = generator.normal(90, 20, (size[1], size[0]))
    if label == "covid19":
        values[(rows - 30) ** 2 + (columns - 35) ** 2 < 150] += 100
    values = values.clip(0, 255)
    if mode == "I;16":
        return Image.fromarray((values * 257).astype(np.uint16))
    grey = Image.fromarray(values.astype(np.uint8))
    return grey if mode == "L" else grey.convert(mode)


def write_folder(root, name, rows, **how):
    """Write a folder of images and its labels.csv; rows are (patient, label)."""
    folder = root / name
    (folder / "images").mkdir(parents=True)
    table = []
    for number, (patient, label) in enumerate(rows):
        file = f"images/{number:03d}.{how.get('suffix', 'png')}"
        seed = number + 1000 * sum(map(ord, name))
        image = picture(seed, label, **{key: value for key, value in how.items() if key != "suffix"})
        image.save(folder / file)
        table.append({"file": file, "patient_id": patient, "site": name, "label": label})
    write_table(folder, table)
    return folder


def write_table(folder, rows):
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["file", "patient_id", "site", "label"])
        writer.writeheader()
        writer.writerows(rows)


def read_table(folder):
    with (folder / "labels.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def patients(count, labels=CLASSES):
    return [(f"p{number:03d}", labels[number % len(labels)]) for number in range(count)]


def simulate(tmp_path, *, study=None, report=False, **changes):
    simulation = tiny_study.make_simulation(
        **{
            "data": {"kind": "image-folder"},
            "partition": {"kind": "folder"},
            "baselines": {"alone": True, "pooled": True},
            **changes,
        }
    )
    plain = {"task": {"kind": "classification", "classes": list(CLASSES)}, "rounds": 1, **(study or {})}
    return tiny_study.simulate(
        tmp_path / "run",
        archives=tmp_path / "archives",
        study=tiny_study.make_study(**plain),
        simulation=simulation,
        data=tmp_path / "data",
        report=report,
    )


def sites_of(run):
    return {site["name"]: site for site in run.results["sites"]}


def test_depths_colours_formats_and_sizes_side_by_side(tmp_path):
    write_folder(tmp_path / "data", "grey", patients(10))
    write_folder(tmp_path / "data", "deep", patients(10), mode="I;16", size=(90, 130))
    write_folder(tmp_path / "data", "colour", patients(10), mode="RGB", size=(64, 64))
    write_folder(tmp_path / "data", "photo", patients(10), suffix="jpg")
    run = simulate(tmp_path)
    assert run.results["status"] == "completed"
    assert set(sites_of(run)) == {"grey", "deep", "colour", "photo"}
    for site in sites_of(run).values():
        assert sum(site["cases"].values()) == 10
        assert site["rejects"] == {}
    assert run.results["classes"] == list(CLASSES)


def test_other_labels_need_another_study_file_only(tmp_path):
    labels = ("a", "b", "c", "d")
    write_folder(tmp_path / "data", "one", patients(16, labels))
    write_folder(tmp_path / "data", "two", patients(16, labels))
    run = simulate(tmp_path, study={"task": {"kind": "classification", "classes": list(labels)}})
    assert run.results["classes"] == list(labels)
    assert run.results["status"] == "completed"


def test_site_of_one_class_has_no_auroc_and_says_so(tmp_path):
    write_folder(tmp_path / "data", "both", patients(12))
    write_folder(tmp_path / "data", "one-class", patients(12, ("covid19",)))
    run = simulate(tmp_path)
    evaluation = next(
        each
        for each in run.results["evaluations"]
        if (each["model"], each["on"]) == ("federated", "one-class")
    )
    primary = run.results["primary_metric"]
    assert evaluation["metrics"][primary]["value"] is None
    assert evaluation["metrics"][primary]["undefined"]
    mean = next(
        each
        for each in run.results["comparisons"]
        if (each["against"], each["on"]) == ("alone", "mean of sites")
    )
    assert mean["sites"] == ["both"]
    assert mean["left_out"] == ["one-class"]


def test_site_with_one_patient_trains_and_is_never_tested(tmp_path):
    write_folder(tmp_path / "data", "many", patients(12))
    write_folder(tmp_path / "data", "single", patients(1))
    run = simulate(tmp_path)
    single = sites_of(run)["single"]
    assert single["cases"] == {"train": 1, "validation": 0, "test": 0}
    [event] = tiny_study.rounds_of(run)
    assert {part["site"]: part["weight"] for part in event["participation"]}["single"] == 1
    assert "single" not in {each["on"] for each in run.results["evaluations"]}
    assert "alone-single" in {each["model"] for each in run.results["evaluations"]}


def test_site_below_the_minimum_is_left_out_by_name(tmp_path):
    write_folder(tmp_path / "data", "many", patients(12))
    write_folder(tmp_path / "data", "single", patients(1))
    run = simulate(tmp_path, minimum_patients=2)
    assert list(sites_of(run)) == ["many"]
    assert run.results["excluded_sites"][0]["name"] == "single"
    assert "minimum_patients" in run.results["excluded_sites"][0]["reason"]


def test_images_of_one_patient_stay_in_one_part(tmp_path):
    write_folder(tmp_path / "data", "both", [(f"p{n // 3}", CLASSES[n % 2]) for n in range(36)])
    site = sites_of(simulate(tmp_path))["both"]
    assert sum(site["patients"].values()) == 12
    assert sum(site["cases"].values()) == 36


def test_duplicates_missing_labels_truncated_and_absent_files(tmp_path):
    folder = write_folder(tmp_path / "data", "messy", patients(20))
    rows = read_table(folder)
    whole = (folder / rows[0]["file"]).read_bytes()
    (folder / rows[1]["file"]).write_bytes(whole)  # the same bytes under another patient
    (folder / rows[2]["file"]).write_bytes((folder / rows[2]["file"]).read_bytes()[:600])
    (folder / rows[3]["file"]).write_bytes(b"not an image")
    (folder / rows[4]["file"]).unlink()
    (folder / rows[5]["file"]).write_bytes(b"")
    rows[6]["label"] = ""
    write_table(folder, [*rows, rows[7]])
    run = simulate(tmp_path)
    assert run.results["status"] == "completed"
    kept = sum(sites_of(run)["messy"]["cases"].values())
    assert 12 <= kept <= 14
    notes = " ".join(run.results["notes"])
    assert "were left out" in notes
    left_out = int(notes.partition(" entries of the data set")[0].split()[-1])
    # Nobody is dropped silently: every row is a case or is counted among what was left out.
    assert kept + left_out == 21


def test_label_that_is_not_in_the_study(tmp_path):
    write_folder(tmp_path / "data", "good", patients(12))
    write_folder(tmp_path / "data", "other", patients(12, ("healthy", "pneumonia")))
    run = simulate(tmp_path)
    assert "good" in sites_of(run)
    told = str(run.results["excluded_sites"]) + str(sites_of(run).get("other", {}).get("rejects"))
    assert "label" in told


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n"])
def test_table_that_is_none_is_an_error_in_words(tmp_path, content):
    (tmp_path / "data" / "x").mkdir(parents=True)
    if content is not None:
        (tmp_path / "data" / "x" / "labels.csv").write_text(content)
    with pytest.raises(DataError):
        simulate(tmp_path)


def test_no_data_folder(tmp_path):
    with pytest.raises(DataError, match="--data"):
        simulate(tmp_path)


def test_every_image_unreadable(tmp_path):
    folder = write_folder(tmp_path / "data", "bad", patients(4))
    for path in (folder / "images").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError):
        simulate(tmp_path)


def test_study_without_test_patients_ends_with_a_note(tmp_path):
    write_folder(tmp_path / "data", "both", patients(12))
    run = simulate(
        tmp_path, study={"data": {"split": {"train": 0.5, "validation": 0.5, "test": 0.0}}}, report=True
    )
    assert run.results["status"] == "completed"
    assert run.results["evaluations"] == []
    assert "no site has a test case" in " ".join(run.results["notes"])


def test_study_without_validation_takes_the_last_round(tmp_path):
    write_folder(tmp_path / "data", "both", patients(12))
    run = simulate(
        tmp_path,
        study={
            "rounds": 2,
            "data": {"split": {"train": 0.5, "validation": 0.0, "test": 0.5}},
            "evaluation": {"selection": "last_round", "bootstrap_replicates": 0},
        },
    )
    assert run.results["selected_version"] == 2
    assert run.results["model_sha256"] == run.results["last_sha256"]


def test_resume_on_other_data_is_refused(tmp_path):
    from fedcad.shared.errors import CheckpointError

    write_folder(tmp_path / "data", "both", patients(12))
    simulate(tmp_path)
    folder = tmp_path / "data" / "both"
    write_table(folder, read_table(folder)[:-1])
    with pytest.raises(CheckpointError, match="other data"):
        tiny_study.simulate(
            tmp_path / "run",
            archives=tmp_path / "archives",
            study=tiny_study.make_study(task={"kind": "classification", "classes": list(CLASSES)}, rounds=1),
            simulation=tiny_study.make_simulation(
                data={"kind": "image-folder"},
                partition={"kind": "folder"},
                baselines={"alone": True, "pooled": True},
            ),
            data=tmp_path / "data",
            resume=True,
        )


def test_external_site_that_does_not_exist_is_named(tmp_path):
    write_folder(tmp_path / "data", "both", patients(12))
    with pytest.raises(DataError, match="nowhere"):
        simulate(tmp_path, external_sites=["nowhere"])


def test_only_external_sites_cannot_train(tmp_path):
    write_folder(tmp_path / "data", "both", patients(12))
    with pytest.raises(DataError, match="no site has training cases"):
        simulate(tmp_path, external_sites=["both"])
