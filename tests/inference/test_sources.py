from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from singleshot.errors import UserError
from singleshot.inference.sources import expand

Make = Callable[..., Path]


def names(*args: str | Path, without: Path | None = None) -> list[str]:
    return [source.name for source in expand(list(args), without=without)]


def test_files_keep_their_order_and_their_names(tmp_path: Path, make: Make) -> None:
    b, a = make("b.png"), make("a.JPG")
    found = expand([b, str(a)])
    assert [source.path for source in found] == [b, a]
    assert [source.name for source in found] == ["b.png", "a.JPG"]
    assert expand(b)[0].path == expand(str(b))[0].path == b  # one path without a list


def test_a_folder_is_searched_to_the_bottom_in_order(tmp_path: Path, make: Make) -> None:
    for name in ("z.png", "a/2.png", "a/10.jpg", "a/deep/er/x.webp", ".hidden/x.png", "._z.png"):
        make(name)
    (tmp_path / "notes.txt").write_text("no image")
    assert names(tmp_path) == ["a/10.jpg", "a/2.png", "a/deep/er/x.webp", "z.png"]


def test_globs(tmp_path: Path, make: Make) -> None:
    for name in ("a/1.png", "a/2.jpg", "b/1.png", "b/deep/3.png", "top.png"):
        make(name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    assert names(f"{tmp_path}/*/*.png") == ["a/1.png", "b/1.png"]
    assert names(f"{tmp_path}/**/*.png") == ["a/1.png", "b/1.png", "b/deep/3.png", "top.png"]
    assert names(f"{tmp_path}/a/*") == ["1.png", "2.jpg"]  # the text file is passed over
    assert names(f"{tmp_path}/[ab]") == ["a/1.png", "a/2.jpg", "b/1.png", "b/deep/3.png"]  # folders that match
    assert sorted(names(f"{tmp_path}/**")) == ["a/1.png", "a/2.jpg", "b/1.png", "b/deep/3.png", "top.png"]  # once each


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_links_in_circles_and_pipes_stop_nothing(tmp_path: Path, make: Make) -> None:
    make("a/1.png")
    make("b/c.jpg/2.png")  # a folder with the name of an image
    for name in ("a/here", "a/again", "b/more"):  # two circles in one folder are 2**40 paths for `glob`
        (tmp_path / name).symlink_to(".")
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    expected = ["a/1.png", "a/loop.png", "a/pipe.png", "b/c.jpg/2.png"]  # those that are no files are said when read
    assert names(tmp_path) == names(f"{tmp_path}/**/*.png") == names(f"{tmp_path}/**") == expected


def test_relative_paths_and_home(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make("a/1.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("a")[0].path == Path("a/1.png")
    assert names("a/*.png") == names("*/1.png")[-1:] == ["1.png"] or names("*/1.png") == ["a/1.png"]
    assert names("~/a") == ["1.png"]


def test_brackets_in_a_name_are_no_glob_where_the_file_exists(tmp_path: Path, make: Make) -> None:
    make("scan [1]/a[2].png")
    make("scan [1]/b.png")
    assert names(tmp_path / "scan [1]" / "a[2].png") == ["a[2].png"]
    assert names(tmp_path / "scan [1]") == ["a[2].png", "b.png"]
    assert names(f"{tmp_path}/scan [1]/*.png") == ["a[2].png", "b.png"]


def test_a_file_that_is_not_there_in_a_folder_with_brackets(tmp_path: Path, make: Make) -> None:
    make("scan [1]/photo.png")
    with pytest.raises(UserError, match=r"phot\.png does not exist \(did you mean .*photo\.png"):
        expand([tmp_path / "scan [1]" / "phot.png"])


def test_names_that_collide_become_paths_below_the_common_folder(tmp_path: Path, make: Make) -> None:
    one, two = make("x/deep/a.png"), make("x/y/a.png")
    assert names(one, two) == ["deep/a.png", "y/a.png"]
    assert names(one.parent, two.parent) == ["deep/a.png", "y/a.png"]
    make("x/y/b.png")
    assert names(two.parent, two) == ["a.png", "b.png", "a.png"]  # one file twice is no collision
    assert names(make("p/A.png"), make("q/a.png")) == ["p/A.png", "q/a.png"]  # one file where case does not count


def test_the_output_folder_is_passed_over(tmp_path: Path, make: Make) -> None:
    make("a.png")
    make("found/a.png")
    assert names(tmp_path, without=tmp_path / "found") == ["a.png"]
    assert names(f"{tmp_path}/**/*.png", without=tmp_path / "found") == ["a.png"]
    assert names(tmp_path / "found", without=tmp_path / "found") == ["a.png"]  # named itself: it is meant


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links")
def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path, make: Make) -> None:
    make("real/a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "circle").symlink_to(tmp_path / "set")
    assert names(tmp_path / "set") == ["linked/a.png"]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links")
def test_each_real_folder_counts_once(tmp_path: Path, make: Make) -> None:
    """Twelve folders with links to all the others have 12! paths."""
    letters = "abcdefghijkl"
    for one in letters:
        make(f"set/{one}/1.png")
        for other in letters:
            (tmp_path / "set" / one / f"to_{other}").symlink_to(tmp_path / "set" / other)
    expected = [f"{one}/1.png" for one in letters]
    assert names(tmp_path / "set") == names(f"{tmp_path}/set/**/*.png") == names(f"{tmp_path}/set/*") == expected
    make("real/2.png")
    for link in ("z", "y"):
        (tmp_path / "set" / link).symlink_to(tmp_path / "real")
    assert names(tmp_path / "set") == [*expected, "y/2.png"]  # under the first of two links


def test_a_named_file_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    (tmp_path / "scan.dat").write_bytes(b"x")
    assert names(tmp_path / "scan.dat") == ["scan.dat"]


@pytest.mark.parametrize("address", ["https://example.org/a.jpg", "http://a/b", "s3://bucket/a.png", "file:///a.png"])
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(UserError, match="nothing is downloaded"):
        expand([address])


def test_what_is_not_there_is_refused(tmp_path: Path, make: Make) -> None:
    make("photo.png")
    with pytest.raises(UserError, match=r"phot\.png does not exist \(did you mean .*photo\.png"):
        expand([tmp_path / "phot.png"])
    with pytest.raises(UserError, match="nor does the folder"):
        expand([tmp_path / "nowhere" / "a.png"])
    with pytest.raises(UserError, match=r"nothing matches .*\*\.jpg"):
        expand([f"{tmp_path}/*.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty and its subfolders hold no images; expected files that end in"):
        expand([tmp_path / "empty"])
    (tmp_path / "empty" / "a.txt").write_text("x")
    with pytest.raises(UserError, match="matches 1 files or folders, but no images"):
        expand([f"{tmp_path}/empty/*.txt"])
    (tmp_path / "film.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match=r"film\.mp4 has the suffix of a video, and only images are read"):
        expand([tmp_path / "film.mp4"])
    for nothing, said in (("", "is not a path"), ("a\0b", "holds a NUL character")):
        with pytest.raises(UserError, match=said):
            expand([nothing])
    with pytest.raises(UserError, match="no source"):
        expand([])
    with pytest.raises(UserError, match="got int"):
        expand([3])  # type: ignore[list-item]
    with pytest.raises(UserError):
        expand(["x" * 5000])
