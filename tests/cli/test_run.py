"""`einsmith run` and `einsmith equal`, as a user meets them."""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from einsmith.cli.main import main
from einsmith.einsum.npz import write_arrays

ROOT = Path(__file__).parents[2]
ATTENTION = ROOT / "examples" / "attention"
SOFTMAX = str(ATTENTION / "softmax.yaml")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments):
    """Codes of a refusal: exit code 1, JSON on standard output, the same on standard error, no traceback."""
    result = run(*arguments, "--json")
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    found = json.loads(result.stdout)
    assert found["ok"] is False
    codes = [diagnostic["code"] for diagnostic in found["diagnostics"]]
    assert all(f"[{code}]" in result.stderr for code in codes)
    return codes


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {"Q": rng.normal(size=(1, 2, 3, 4)), "K": rng.normal(size=(1, 2, 5, 4)), "V": rng.normal(size=(1, 2, 5, 6))}


def attention(arrays):
    score = np.einsum("bhpe,bhme->bhpm", arrays["Q"], arrays["K"]) / np.sqrt(arrays["Q"].shape[-1])
    weight = np.exp(score - score.max(-1, keepdims=True))
    return np.einsum("bhpm,bhmf->bhpf", weight / weight.sum(-1, keepdims=True), arrays["V"])


def test_outputs_go_to_a_file_and_shapes_to_json(tmp_path, arrays):
    np.savez(tmp_path / "in.npz", **arrays)
    result = run("run", SOFTMAX, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "new" / "out.npz", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"outputs": {"AV": [1, 2, 3, 6]}, "backend": "interpret"}
    with np.load(tmp_path / "new" / "out.npz") as found:
        assert found.files == ["AV"]
        assert found["AV"].dtype == np.float64
        assert np.allclose(found["AV"], attention(arrays), rtol=1e-12)


def test_what_is_no_regular_file_is_written_to_and_never_replaced(tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_arrays(pipe, {"X": np.arange(3.0)})
    assert pipe.is_fifo()
    reader.join(10)
    assert np.load(io.BytesIO(received[0]))["X"].tolist() == [0, 1, 2]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "link.npz").symlink_to(tmp_path / "target.npz")
    write_arrays(tmp_path / "link.npz", {"X": np.arange(3.0)})
    assert (tmp_path / "link.npz").is_symlink()
    assert np.load(tmp_path / "target.npz")["X"].tolist() == [0, 1, 2]


def test_compressed_files_and_other_float_types(tmp_path, arrays):
    half = {name: array.astype(np.float32) for name, array in arrays.items()}
    np.savez_compressed(tmp_path / "in.npz", **half)
    result = run("run", SOFTMAX, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert result.exit_code == 0, result.output
    assert "AV[b=1, h=2, p=3, f=6] float64" in result.stdout
    with np.load(tmp_path / "out.npz") as found:
        assert np.allclose(found["AV"], attention(half), rtol=1e-6)


def test_random_inputs_are_the_same_for_the_same_seed(tmp_path):
    sizes = "B=1,H=2,P=3,M=4,E=5,F=6"
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        target = tmp_path / f"{name}.npz"
        assert (
            run(
                "run", SOFTMAX, "--random", seed, "--size", sizes, "-o", target, "--save-inputs", tmp_path / f"in-{name}.npz"
            ).exit_code
            == 0
        )
    a, b, c = (np.load(tmp_path / f"{name}.npz")["AV"] for name in "abc")
    assert a.shape == (1, 2, 3, 6)
    assert (a == b).all()
    assert (a != c).any()
    again = run("run", SOFTMAX, "--inputs", tmp_path / "in-a.npz", "-o", tmp_path / "again.npz")
    assert again.exit_code == 0
    assert (np.load(tmp_path / "again.npz")["AV"] == a).all()


def test_parameters(tmp_path, arrays):
    np.savez(tmp_path / "in.npz", **arrays)
    results = []
    for causal in (0, 1):
        target = tmp_path / f"{causal}.npz"
        result = run(
            "run",
            ATTENTION / "flash2.yaml",
            "--inputs",
            tmp_path / "in.npz",
            "--param",
            f"causal={causal}",
            "--size",
            "M0=2",
            "-o",
            target,
        )
        assert result.exit_code == 0, result.output
        results.append(np.load(target)["AV"])
    assert np.allclose(results[0], attention(arrays), rtol=1e-12)
    assert not np.allclose(results[0], results[1])


def test_names_of_numpy_s_own_arguments(tmp_path):
    write_arrays(tmp_path / "x.npz", {"file": np.arange(3), "args": np.ones(())})
    with np.load(tmp_path / "x.npz") as found:
        assert sorted(found.files) == ["args", "file"]


def test_wrong_inputs(tmp_path, arrays):
    source = tmp_path / "in.npz"

    def codes(**changed):
        np.savez(source, **{name: array for name, array in {**arrays, **changed}.items() if array is not None})
        return refused("run", SOFTMAX, "--inputs", source)

    assert codes(V=None) == ["E307"]
    assert codes(V=None, v=arrays["V"]) == ["E308", "E307"]
    assert codes(extra=np.zeros(3)) == ["E308"]
    assert codes(V=arrays["V"][:, :, :4]) == ["E309"]
    assert codes(V=arrays["V"][0]) == ["E310"]
    assert codes(V=arrays["V"].astype(complex)) == ["E311"]
    assert codes(V=arrays["V"].astype(str)) == ["E311"]
    assert codes(V=np.full(arrays["V"].shape, None)) == ["E313"]


def test_a_misspelt_name_gets_a_hint(tmp_path, arrays):
    np.savez(tmp_path / "in.npz", Q=arrays["Q"], Keys=arrays["K"], V=arrays["V"])
    result = run("run", SOFTMAX, "--inputs", tmp_path / "in.npz")
    assert "error[E308]: the cascade has no input `Keys`" in result.stderr
    assert "error[E307]: input `K` is missing" in result.stderr


def test_shapes_that_contradict_a_size_say_where_it_comes_from(tmp_path, arrays):
    np.savez(tmp_path / "in.npz", **arrays)
    result = run("run", SOFTMAX, "--inputs", tmp_path / "in.npz", "--size", "M=7")
    assert result.exit_code == 1
    assert "input `K` has 5 positions along `m` (dimension 3), needs 7: `M` is 7 (given)" in result.stderr


def hostile(path: Path, kind: str) -> None:
    """Files that are no arrays, or not the arrays they say."""
    if kind == "text":
        path.write_text("Q,K,V\n1,2,3\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros((2, 2)))
    elif kind == "pickle":
        import pickle

        path.write_bytes(pickle.dumps({"Q": 1}))
    elif kind == "cut short":
        np.savez(path, Q=np.zeros((64, 64)))
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "broken entry":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("Q.npy", b"\x93NUMPY\x01\x00\x10\x00 not a header  \n")
    elif kind == "no array":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("Q.txt", b"hello")
    elif kind == "short data":
        with zipfile.ZipFile(path, "w") as archive:
            for name in "QKV":
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array_header_1_0(entry, {"descr": "<f8", "fortran_order": False, "shape": (1, 2, 3, 4)})
    elif kind == "huge header":
        with zipfile.ZipFile(path, "w") as archive:
            for name in "QKV":
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array_header_1_0(entry, {"descr": "<f8", "fortran_order": False, "shape": (2**14,) * 4})
    elif kind == "negative shape":
        with zipfile.ZipFile(path, "w") as archive, archive.open("Q.npy", "w") as entry:
            np.lib.format.write_array_header_1_0(entry, {"descr": "<f8", "fortran_order": False, "shape": (-1, 2, 3, 4)})
    elif kind == "object entry":
        np.savez(path, Q=np.array([print], dtype=object))


@pytest.mark.parametrize(
    "kind, code",
    [
        ("missing", "E312"), ("text", "E312"), ("empty", "E312"), ("folder", "E312"), ("npy", "E312"), ("pickle", "E312"),
        ("cut short", "E312"), ("broken entry", "E312"), ("no array", "E312"), ("short data", "E312"), ("huge header", "E328"),
        ("negative shape", "E312"), ("object entry", "E313"),
    ],
)  # fmt: skip
def test_files_that_are_not_what_they_should_be(tmp_path, kind, code):
    path = tmp_path / "in.npz"
    hostile(path, kind)
    assert refused("run", SOFTMAX, "--inputs", path) == [code]


def test_faults_of_evaluation_name_the_place(tmp_path):
    spec = tmp_path / "bad.yaml"
    spec.write_text("ranks: {p: P}\ninputs: {X: [p]}\nparams: {W: 0}\ncascade: |\n  Y[p] = X[p + W]\noutputs: [Y]\n")
    assert run("run", spec, "--random", 0, "--size", "P=4").exit_code == 0
    result = run("run", spec, "--random", 0, "--size", "P=4", "--param", "W=1", "--json")
    (diagnostic,) = json.loads(result.stdout)["diagnostics"]
    assert diagnostic["code"] == "E320"
    assert (diagnostic["line"], diagnostic["column"]) == (5, 12)
    assert diagnostic["message"].startswith("index 4 of `X`")


def test_usage_errors_have_exit_code_2(tmp_path):
    assert run("run", SOFTMAX).exit_code == 2
    assert run("run", SOFTMAX, "--inputs", tmp_path / "a.npz", "--random", 1).exit_code == 2
    assert run("run", SOFTMAX, "--random", 1, "--size", "P=x").exit_code == 2
    assert run("run", SOFTMAX, "--random", 1, "--backend", "magic").exit_code == 2
    assert run("equal", SOFTMAX, SOFTMAX, "--map", "Q").exit_code == 2


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert refused("run", SOFTMAX, "--random", 0, "-o", tmp_path / "file" / "out.npz") == ["E003"]


def test_every_example_runs_on_random_inputs():
    for path in sorted(ATTENTION.glob("*.yaml")):
        result = run("run", path, "--random", 0, "--json")
        assert result.exit_code == 0, (path.stem, result.output)
        assert json.loads(result.stdout)["outputs"]


def test_help_has_an_example():
    for command in ("run", "equal"):
        assert f"einsmith {command} examples/attention/" in run(command, "--help").stdout


# --- equal ------------------------------------------------------------------------------------------------------------


def test_equal_json():
    result = run("equal", SOFTMAX, ATTENTION / "flash2.yaml", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["equal"], found["how"], found["counter_example"]) == (True, "numeric", None)
    assert 0 <= found["max_error"] < 1e-12
    assert json.loads(run("equal", SOFTMAX, SOFTMAX, "--json").stdout)["how"] == "symbolic"


def test_different_is_an_answer_with_a_counter_example():
    result = run("equal", SOFTMAX, ATTENTION / "softmax-causal.yaml", "--size", "P=3,M=3", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["equal"] is False
    assert found["counter_example"]["sizes"]["P"] == 3
    assert "in the first and" in found["counter_example"]["what"]


def test_cascades_that_do_not_pair_up():
    assert refused("equal", SOFTMAX, ATTENTION / "rms-norm-matmul.yaml") == ["E333", "E333"]
    assert refused("equal", SOFTMAX, SOFTMAX, "--map", "Z=Q") == ["E331"]


def test_the_generated_kernel_gives_the_same(tmp_path):
    pytest.importorskip("triton")
    sizes = "B=1,H=1,P=5,M=7,E=16,F=16"
    results = []
    for backend in ("interpret", "triton"):
        target = tmp_path / f"{backend}.npz"
        result = run("run", SOFTMAX, "--random", 3, "--size", sizes, "--backend", backend, "-o", target, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == {"outputs": {"AV": [1, 1, 5, 16]}, "backend": backend}
        results.append(np.load(target)["AV"])
    assert np.allclose(*results, rtol=1e-4, atol=1e-5)  # float32 against float64
