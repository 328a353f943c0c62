"""A session on a file that explains itself: no mask goes in, and the map comes out beside the scores."""

import numpy as np
import onnx
import pytest
from embedding.explained_files import BATCH_MIXING, SIZE, images, write_explained

import masktool
from masktool.errors import MasktoolError
from masktool.option_names import for_command_line


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that were written, by their options."""
    folder = tmp_path_factory.mktemp("explained")

    def find(**options):
        key = tuple(options.items())
        if key not in found:
            found[key] = write_explained(folder / f"file{len(found)}.onnx", **options)
        return found[key]

    found = {}
    return find


def load(files, **options):
    return masktool.load(files(**options), "cpu")


def test_scores_and_map_come_from_one_run(files):
    with load(files) as session:
        found = session.run(images(3))
        assert session.explanation_outputs == ["saliency_map"]
        assert found["saliency_map"].shape == (3, 1, *SIZE)
        assert np.array_equal(session(images(3)), found["logits"])
        assert session.forward_passes == 6


def test_masks_are_refused_in_one_line(files):
    with load(files) as session:
        with pytest.raises(MasktoolError) as caught:
            session(images(), np.ones((1, 1, *SIZE), np.float32))
        with pytest.raises(MasktoolError, match="takes no mask"):
            next(session.masked_scores(images(), [np.ones((1, 1, *SIZE), np.float32)]))
    said = for_command_line(caught.value.message)
    assert "the file explains itself by occlusion and takes no mask" in said
    assert "export one with a mask: masktool export network.onnx -o NEW.onnx" in said
    assert "\n" not in said


@pytest.mark.parametrize("kind", ["optional", "required"])
def test_the_target_may_be_named_and_left_out(files, kind):
    with load(files, target=kind) as session:
        top = int(session(images()).argmax())
        left_out = session.run(images())["saliency_map"]
        named, other = (
            session.run(images(), inputs={"target": target})["saliency_map"] for target in (top, (top + 1) % 4)
        )
        assert np.array_equal(left_out, named)
        assert not np.array_equal(left_out, other)
        with pytest.raises(MasktoolError, match=r"no such class.*-1 to 3"):
            session.run(images(), inputs={"target": 4})


def test_each_image_may_have_a_target_of_its_own(files):
    with load(files, target="required") as session:
        both = session.run(images(2), inputs={"target": [2, 0]})["saliency_map"]
        for position, target in enumerate((2, 0)):
            alone = session.run(images(2)[position : position + 1], inputs={"target": target})["saliency_map"]
            assert np.abs(both[position] - alone[0]).max() <= 1e-6
        with pytest.raises(MasktoolError, match="one class index, or one for each of 2 results"):
            session.run(images(2), inputs={"target": [2, 0, 1]})


@pytest.mark.parametrize("kind", ["optional", "required"])
def test_it_explains_where_a_map_is_asked_for(files, kind):
    with load(files, on_request=kind) as session:
        explained = session.run(images(2))["saliency_map"]
        assert explained.shape == (2, 1, *SIZE)
        assert session.run(images(2), inputs={"explain": [False]})["saliency_map"].shape == (0, 1, *SIZE)
        plain = session.run(images(2), inputs={"explain": False}, outputs=["logits"])["logits"]
        assert np.array_equal(session(images(2)), plain)


@pytest.mark.parametrize("on_request", ["always", "required"])
def test_a_file_of_one_image_at_a_time_takes_several(files, on_request):
    with load(files, network=BATCH_MIXING, masking="fill", target="required", on_request=on_request) as session:
        assert session.metadata.one_by_one
        found = session.run(images(3), inputs={"target": [0, 1, -1]})
        assert found["saliency_map"].shape == (3, 1, *SIZE)
        alone = session.run(images(3)[1:2], inputs={"target": 1})
        assert np.array_equal(found["saliency_map"][1], alone["saliency_map"][0])
        if on_request == "required":
            assert session.run(images(3), inputs={"explain": False})["saliency_map"].shape == (0, 1, *SIZE)


def test_inputs_that_the_file_does_not_have_are_refused(files):
    with load(files) as session, pytest.raises(MasktoolError, match=r"no such input \(target\)"):
        session.run(images(), inputs={"target": 1})


def change_metadata(path, new, **values):
    model = onnx.load(path)
    for entry in model.metadata_props:
        name = entry.key.removeprefix("masktool.")
        entry.value = values.get(name, entry.value)
    onnx.save(model, new)
    return new


@pytest.mark.parametrize("damage", ['{"method": "occlusion"}', '{"method": 3}', "{}", "[]", '"x"'])
def test_damaged_entries_are_told(files, tmp_path, damage):
    with pytest.raises(MasktoolError, match=r"damaged masktool metadata.*explanation"):
        masktool.load(change_metadata(files(), tmp_path / "damaged.onnx", explanation=damage), "cpu")


def test_a_file_whose_map_is_gone_is_refused(files, tmp_path):
    model = onnx.load(files())
    del model.graph.output[1:]
    onnx.save(model, tmp_path / "none.onnx")
    with pytest.raises(MasktoolError, match=r"outputs do not agree with the metadata.*'saliency_map'"):
        masktool.load(tmp_path / "none.onnx", "cpu")


def test_a_file_that_says_that_it_takes_a_mask_must_have_one(files, tmp_path):
    path = change_metadata(files(), tmp_path / "lies.onnx", explanation="null")
    with pytest.raises(MasktoolError, match=r"inputs do not agree with the metadata.*'mask'"):
        masktool.load(path, "cpu")
