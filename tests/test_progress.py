"""The record of solved exercises, from saved notebooks of every condition."""

import json
import shutil

import pytest

from tests.notebooks import CHAPTERS
from utils import progress

CHAPTER = next(path for path in CHAPTERS if path.stem.startswith("03"))


def solved(path, *numbers):
    """A copy of chapter 03 as it looks after some exercises were solved and saved."""
    notebook = json.loads(CHAPTER.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        number = cell["id"].removeprefix("stub-").replace("-", ".")
        if cell["id"].startswith("stub-"):
            word = f"{number} ✓ well done\n" if number in numbers else f"{number} ✗ not yet\n"
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": [word]}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")


def test_one_learner(tmp_path, capsys):
    solved(tmp_path / CHAPTER.name, "3.1", "3.3")
    assert progress.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "03   2 of 3   3.1 ✓  3.2 ·  3.3 ✓" in out and "all  2 of 3" in out


def test_the_class_as_text_and_csv(tmp_path, capsys):
    solved(tmp_path / "class" / "ada" / CHAPTER.name, "3.1", "3.2", "3.3")
    solved(tmp_path / "class" / "bob" / CHAPTER.name, "3.2")
    table = tmp_path / "table.csv"
    assert progress.main([str(tmp_path / "class"), "--csv", str(table)]) == 0
    assert capsys.readouterr().out.split() == ["student", "03", "all", "ada", "3", "3", "bob", "1", "1"]
    assert table.read_text().split() == ["student,03,all", "ada,3,3", "bob,1,1"]


@pytest.mark.parametrize("content, words", [
    ("{", "cannot be read"), ('{"cells": 3}', "not a notebook of this course"), ("[]", "not a notebook of this course"),
    ('{"cells": [{"id": "x", "source": "", "cell_type": "markdown"}]}', "not a notebook of this course"),
])
def test_what_cannot_be_read_is_named_and_skipped(tmp_path, capsys, content, words):
    solved(tmp_path / CHAPTER.name, "3.1")
    (tmp_path / "04_bigram.ipynb").write_text(content)
    (tmp_path / "scratch.ipynb").write_text("mine")
    assert progress.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "1 of 3" in out and words in out and "04_bigram.ipynb is skipped" in out and "scratch.ipynb is skipped" in out


def test_unsaved_outputs_are_named(tmp_path, capsys):
    notebook = json.loads(CHAPTER.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = []
    (tmp_path / CHAPTER.name).write_text(json.dumps(notebook))
    assert progress.main([str(tmp_path)]) == 0
    assert "saved before its checks were run" in capsys.readouterr().out


def test_it_runs_and_changes_nothing(tmp_path):
    shutil.copy(CHAPTER, tmp_path)
    before = (tmp_path / CHAPTER.name).read_bytes()
    progress.main([str(tmp_path)])
    assert (tmp_path / CHAPTER.name).read_bytes() == before


def test_a_folder_that_is_not_there(capsys):
    assert progress.main(["nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
