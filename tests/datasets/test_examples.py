"""What is read from folders and lists to train on, and what is said where that fails."""

import json

import pytest
from PIL import Image

from masktool import MasktoolError
from masktool.datasets.examples import Example, digest, read_examples

NAMES = ("cat", "dog", "guinea pig")
LAYOUT = "expected a folder with one subfolder of images per class, or a CSV of file,label"


def picture(path, color=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (color, 0, 0)).save(path)


@pytest.fixture
def data(tmp_path):
    """Three classes of 4, 5 and 6 pictures."""
    for count, name in zip((4, 5, 6), ("cat", "dog", "guinea_pig"), strict=True):
        for i in range(count):
            picture(tmp_path / "data" / name / f"{i}.png", i)
    return tmp_path / "data"


def read(data, names=NAMES, n_classes=3, **options):
    return read_examples(data, class_names=names, n_classes=n_classes, **options)


def labels_by_folder(examples):
    return {example.name.partition("/")[0]: example.label for example in examples}


def write(path, text):
    path.write_text(text)
    return path


def test_subfolders_are_classes_by_name_whatever_the_order(data):
    examples = read(data, ("dog", "Guinea Pig", "bird", "cat"), 4)
    assert labels_by_folder(examples) == {"cat": 3, "dog": 0, "guinea_pig": 1}
    assert [example.name for example in examples] == sorted(
        path.relative_to(data).as_posix() for path in data.glob("*/*")
    )
    assert examples[0] == Example("cat/0.png", data / "cat/0.png", 3)


def test_subfolders_are_classes_by_index(tmp_path):
    for name in ("2", "0", "10"):
        picture(tmp_path / name / "a.png")
    assert labels_by_folder(read(tmp_path, None, 11)) == {"0": 0, "2": 2, "10": 10}


def test_subfolders_without_meaning_are_the_classes_in_sorted_order(data):
    assert labels_by_folder(read(data, None)) == {"cat": 0, "dog": 1, "guinea_pig": 2}


def test_classes_are_searched_at_any_depth_for_pictures_alone(data):
    before = {example.name for example in read(data)}
    for name in ("cat/images/deep/x.JPEG", "cat/.hidden/y.png", "cat/.z.png", "stray.png", ".cache/a.png"):
        picture(data / name)
    write(data / "cat" / "boxes.txt", "nothing")
    write(data / "cat" / "array.npy", "nothing")
    (data / "dog" / "again").symlink_to(data / "dog")
    assert {example.name for example in read(data)} - before == {"cat/images/deep/x.JPEG"}


@pytest.mark.parametrize("seed", [0, 1])
def test_so_many_of_each_class(data, seed):
    two, three = read(data, per_class=2, seed=seed), read(data, per_class=3, seed=seed)
    assert [sum(each.label == label for each in two) for label in range(3)] == [2, 2, 2]
    assert two == tuple(sorted(two, key=lambda example: example.name))
    assert set(two) < set(three)
    assert read(data, per_class=2, seed=seed) == two
    assert read(data, per_class=2, seed=seed + 1) != two


def test_the_choice_of_a_class_does_not_depend_on_the_others(data):
    before = [example for example in read(data, per_class=2) if example.label == 1]
    picture(data / "cat/new.png")
    for path in (data / "guinea_pig").glob("[0-3].png"):
        path.unlink()
    assert [example for example in read(data, per_class=2) if example.label == 1] == before


def test_classes_alike_are_chosen_from_apart(tmp_path):
    for name in ("0", "1"):
        for i in range(10):
            picture(tmp_path / name / f"{i}.png")
    chosen = [example.name.split("/") for example in read(tmp_path, None, 2, per_class=5)]
    assert {file for name, file in chosen if name == "0"} != {file for name, file in chosen if name == "1"}


@pytest.mark.parametrize("header", ["", "file,label\n", "id,Label,image\n"])
def test_a_list_of_files_relative_to_its_folder_or_absolute(data, header):
    rows = [("cat/0.png", "cat"), (str(data / "dog/1.png"), "1"), ("./dog/2.png", "DOG")]
    lines = [f"7,{label},{name}" if "id" in header else f"{name},{label}" for name, label in rows]
    path = write(data / "list.csv", header + "\n".join(lines))
    assert {(example.path, example.label) for example in read(path)} == {
        (data / "cat/0.png", 0),
        (data / "dog/1.png", 1),
        (data / "dog/2.png", 1),
    }


def test_a_list_may_be_json(data):
    path = write(data / "list.json", json.dumps({"cat/0.png": 0, "dog/0.png": {"label": "dog"}}))
    assert [(example.name, example.label) for example in read(path)] == [("cat/0.png", 0), ("dog/0.png", 1)]


def refusal(data, *arguments, **options):
    with pytest.raises(MasktoolError) as caught:
        read(data, *arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"({data})", "(DATA)")


def test_no_such_data(tmp_path):
    assert refusal(tmp_path / "none") == f"no such data (DATA): {LAYOUT}"


def test_no_images(data):
    assert refusal(data / "cat") == f"no images in subfolders (DATA): {LAYOUT}"
    (data / "cat/empty").mkdir()
    assert refusal(data / "cat") == f"no images in subfolders (DATA): {LAYOUT}"
    assert refusal(write(data / "list.csv", "file,label\n")) == f"no images (DATA): {LAYOUT}"


@pytest.mark.parametrize(
    ("count", "listed"), [(1, "x0"), (3, "x0, x1, x2"), (4, "x0, x1, x2 and 1 more"), (30, "x0, x1, x10 and 27 more")]
)
def test_class_folders_without_images_are_listed(data, count, listed):
    for i in range(count):
        (data / f"x{i}").mkdir()
    assert refusal(data) == f"class folders without images (DATA): {listed}; fill them, or take them away"


def test_one_class(data):
    picture(data / "one/cat/a.png")
    expected = "only one class (DATA): expected images of two or more, got class"
    assert refusal(data / "one") == f"{expected} 0 'cat' alone"
    assert refusal(write(data / "list.csv", "cat/0.png,2\ncat/1.png,2"), None) == f"{expected} 2 alone"


def test_folders_that_are_no_class(data):
    assert refusal(data, ("cat", "dog", "dog")) == (
        """subfolders that are no class of the model (DATA): "dog" (classes 1, 2 are called 'dog'), """
        """"guinea_pig" (no class is called 'guinea_pig'); use the index or the name of a class"""
    )
    (data / "cat").rename(data / "3")
    assert refusal(data, None) == (
        """subfolders that are no class of the model (DATA): "3" (no such class: expected 0 to 2, got "3"), """
        """"dog" (the model's classes have no names: expected an index, got 'dog'), "guinea_pig" """
        """(the model's classes have no names: expected an index, got 'guinea_pig'); """
        """use the index or the name of a class"""
    )


def test_folders_without_meaning_of_another_number(data):
    assert refusal(data, None, 4) == (
        "the model's classes have no names (DATA): expected 4 subfolders, one per class in the order of the classes, "
        "got 3; name the classes with labels, or call the subfolders by the index of their class"
    )


def test_too_few_of_a_class(data):
    assert refusal(data, per_class=6) == (
        "classes with too few images (DATA): expected 6 of each, got 0 'cat' (4), 1 'dog' (5); "
        "add images, or lower per_class"
    )


def test_files_that_do_not_open(data):
    for name in ("dog/0.png", "cat/1.png", "dog/4.png"):
        write(data / name, "no picture")
    (data / "guinea_pig/3.png").write_bytes(b"")
    expected = "files that do not open as images (DATA):"
    fix = "mend them, or take them away"
    assert refusal(data) == f"{expected} cat/1.png, dog/0.png, dog/4.png and 1 more; {fix}"
    write(data / "list.csv", "cat/0.png,cat\ndog/a.npy,dog")
    write(data / "dog/a.npy", "no picture")
    assert refusal(data / "list.csv") == f"{expected} dog/a.npy; {fix}"


def test_a_list_of_files_that_are_not_there(data):
    path = write(data / "list.csv", "cat/0.png,cat\n" + "".join(f"dog/x{i}.png,dog\n" for i in range(5)))
    assert refusal(path) == (
        "images that are not there (DATA): dog/x0.png, dog/x1.png, dog/x2.png and 2 more; "
        "write paths relative to the file's folder, or absolute ones"
    )


def test_labels_that_are_no_class(data):
    path = write(data / "list.csv", "cat/0.png,cat\ncat/1.png,lion\ncat/2.png,lion\ndog/1.png,3\n")
    assert refusal(path) == (
        """labels that are no class of the model (DATA): "lion" (no class is called 'lion'), """
        """"3" (no such class: expected 0 to 2, got "3"); use the index or the name of a class"""
    )
    path = write(data / "list.json", json.dumps({"cat/0.png": [1], "dog/0.png": None}))
    assert refusal(path).startswith("labels that are no class of the model (DATA): [1] (not a label")


def test_an_image_listed_twice(data):
    path = write(data / "list.csv", "cat/0.png,cat\ndog/../cat/0.png,dog\ndog/1.png,dog\n")
    assert refusal(path) == f"images listed twice (DATA): {data / 'cat/0.png'}; keep one line of each"


def test_the_digest_tells_names_labels_and_sizes(data):
    examples = read(data)
    before = digest(examples)
    assert digest(read(data)) == before
    assert digest(read(data, ("dog", "cat", "guinea pig"))) != before
    assert digest(examples[1:]) != before
    (data / "cat/0.png").rename(data / "cat/9.png")
    assert digest(read(data)) != before
    (data / "cat/9.png").rename(data / "cat/0.png")
    assert digest(read(data)) == before
    with (data / "cat/0.png").open("ab") as stream:
        stream.write(b"0")
    assert digest(read(data)) != before


def test_the_digest_does_not_depend_on_where_the_data_stand(data):
    before = digest(read(data))
    assert digest(read(data.rename(data.parent / "moved"))) == before


def test_the_digest_of_a_file_that_is_gone(data):
    examples = read(data)
    (data / "cat/0.png").unlink()
    with pytest.raises(MasktoolError, match=r"^cannot read \(.*cat/0\.png\): No such file"):
        digest(examples)
