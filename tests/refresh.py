"""Run notebooks from a fresh kernel and store what comes out: ``python -m tests.refresh [03 04 …]``.

Without numbers it takes every notebook. Each is run in order, with one thread, and is
written only if no cell failed. What would differ from one machine or day to the next
(times, kernel details, widget state) is left out. The final losses go into
data/ladder.json, so the ladder shows measured numbers only.

An explorer's cell is stored with its words only: the output of ``utils.widgets.Explorer`` is
a bundle of a sentence (text/plain) and a pointer to the live widget, and the pointer means
nothing without the kernel that made it, so it is dropped here. A page that has not been run
says what the explorer is and that one must run the cell; the still picture is in the cell
before. nbval compares the sentence and passes over the pointer.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from utils.data import ROOT, load_text
from utils.train import LADDER

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def refresh(path):
    """Run one notebook and store its outputs; the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    NotebookClient(notebook, timeout=900, record_timing=False, resources={"metadata": {"path": path.parent}}).execute()
    seconds = time.perf_counter() - start
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "jupyter", "cellView")}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            _store_rung(path, cell.outputs)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    return seconds


def _joined(outputs):
    """Neighbouring pieces of one stream as one, since how they were cut is chance."""
    joined = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":   # a line that was overwritten while it ran, as it read in the end
            output.text = re.sub(r"(?m)^.*\r(.*?) *$", r"\1", output.text)
    return joined


def _store_rung(path, outputs):
    """Take a final loss, as utils.train.compare prints it, over into the ladder."""
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    found = re.search(r"validation loss (\d\.\d+)   within", text)
    if found:
        ladder = json.loads(LADDER.read_text(encoding="utf-8"))
        ladder[path.name[:2]]["val"] = float(found[1])
        rows = ",\n".join(f" {json.dumps(key)}: {json.dumps(rung)}" for key, rung in ladder.items())
        LADDER.write_text("{\n" + rows + "\n}\n", encoding="utf-8")


def main(wanted):
    load_text()   # downloaded once, before any notebook prints about it
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    notebooks = Path(ROOT / "notebooks")
    for path in sorted([*notebooks.glob("*.ipynb"), *notebooks.glob("solutions/*.ipynb")]):
        if not wanted or path.name[:2] in wanted:
            print(f"{path.relative_to(ROOT)}  {refresh(path):.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
