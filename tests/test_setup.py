"""The setup cell from any folder and in Colab, and the command that writes the public address."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from tests.notebooks import CHAPTERS, cells
from utils.data import ROOT

SETUP = cells(CHAPTERS[0], "code")[0]["source"]
REPORT = "\nimport utils.data; print(utils.data.ROOT)"


def run_setup(folder, code=SETUP, isolated=False, **env):
    """Run the setup cell as a fresh Python in ``folder``; isolated from the installed course if asked."""
    if isolated:   # hide the installed copy, as on a machine that has only the packages
        code = "import sys\nsys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]\n" \
               f"sys.path = [p for p in sys.path if p not in ('', {str(ROOT)!r})]\n" + code
    return subprocess.run(
        [sys.executable, "-c", code + REPORT], cwd=folder, capture_output=True, text=True, timeout=120,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | env,
    )


@pytest.mark.parametrize("folder", [".", "notebooks", "notebooks/solutions", "utils"])
def test_the_setup_cell_finds_the_course(folder, tmp_path):
    course = copy_of_course(tmp_path)
    (course / folder).mkdir(parents=True, exist_ok=True)
    done = run_setup(course / folder)
    assert done.stdout.strip() == str(course.resolve()), done.stderr


def test_an_installed_course_is_found_from_anywhere(tmp_path):
    assert run_setup(tmp_path).stdout.strip() == str(ROOT)


def test_where_there_is_no_course_it_says_what_to_do(tmp_path):
    done = run_setup(tmp_path, isolated=True)
    assert done.returncode != 0 and "Open the notebook from inside it" in done.stderr


def copy_of_course(tmp_path):
    course = tmp_path / "copy"
    for name in ("utils", "notebooks", ".ci"):
        shutil.copytree(ROOT / name, course / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, course)
    return course


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """A machine like Colab's: it says at port 9000 what is open, and its git clones from a folder here."""
    answer = {}

    class Sessions(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps([{"path": answer["path"]}]).encode())

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Sessions)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    tools, log = tmp_path / "tools", tmp_path / "git.log"
    tools.mkdir()
    git = tools / "git"
    git.write_text(f'#!/bin/sh\necho "$@" >> {log}\nmkdir course && cp -r {ROOT}/utils course/utils\n')
    git.chmod(0o755)
    content = tmp_path / "content"
    content.mkdir()

    def open_in_colab(path, code=SETUP):
        answer["path"] = path
        code = code.replace(":9000", f":{server.server_port}")
        done = run_setup(
            content, code, isolated=True, COLAB_JUPYTER_IP="127.0.0.1", PATH=f"{tools}:{os.environ['PATH']}"
        )
        return done, log.read_text() if log.exists() else "", content

    yield open_in_colab
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(sys.platform == "win32", reason="Colab is Linux")
def test_in_colab_it_clones_where_the_page_was_opened_from(colab):
    done, git, content = colab(
        "fileId=https%3A%2F%2Fgithub.com%2Fada%2Fgpt-course%2Fblob%2Fmain%2Fnotebooks%2F03_batches.ipynb"
    )
    assert "https://github.com/ada/gpt-course course" in git, done.stderr
    assert done.stdout.strip() == str((content / "course").resolve())
    colab("fileId=https%3A%2F%2Fgithub.com%2Fada%2Fgpt-course%2Fblob%2Fmain%2Fx.ipynb")   # run again: nothing to clone
    assert (content.parent / "git.log").read_text() == git


@pytest.mark.skipif(sys.platform == "win32", reason="Colab is Linux")
def test_in_colab_it_asks_when_it_cannot_tell(colab):
    done, git, _ = colab("fileId=1aBcD")
    assert done.returncode != 0 and "OWNER/REPO" in done.stderr and not git
    _, git, _ = colab("fileId=1aBcD", SETUP.replace('REPO = ""', 'REPO = "ada/gpt-course"'))
    assert "github.com/ada/gpt-course" in git


def test_the_public_address_is_written_everywhere_and_again(tmp_path):
    course = copy_of_course(tmp_path)
    for address in ("ada/gpt-course", "lovelace/gpt"):
        subprocess.run([sys.executable, course / ".ci" / "publish.py", address], check=True)
    assert "git clone https://github.com/lovelace/gpt\n" in (course / "README.md").read_text(encoding="utf-8")
    assert (course / "pyproject.toml").read_text(encoding="utf-8").count("github.com/lovelace/gpt") == 1
    for path in (course / "notebooks").rglob("*.ipynb"):
        page = path.read_text(encoding="utf-8")
        assert page.count("colab-badge.svg") == 1 and 'REPO = \\"lovelace/gpt\\"' in page and "ada/" not in page


def test_a_wrong_address_is_refused(tmp_path):
    course = copy_of_course(tmp_path)
    before = (course / "README.md").read_bytes()
    done = subprocess.run([sys.executable, course / ".ci" / "publish.py", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2 and "OWNER/REPO" in done.stderr
    assert (course / "README.md").read_bytes() == before


