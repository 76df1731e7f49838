"""Write the course's public address into it: ``python .ci/publish.py OWNER/REPO``.

Sets the address that the setup cell clones in Colab, puts an "Open in Colab" badge under
each notebook's title, and the badge, the clone address and the project link into
README.md and pyproject.toml. Run it again with another address to change it.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def badge(address, path):
    page = f"https://colab.research.google.com/github/{address}/blob/main/{path}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({page})"


def publish(address, root=ROOT):
    for path in sorted((root / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        notebook = json.loads(path.read_text(encoding="utf-8"))
        link = badge(address, path.relative_to(root).as_posix())
        for cell in notebook["cells"]:
            source = "".join(cell["source"])
            if cell["id"] == "setup":
                source = re.sub(r'^REPO = ".*?"', f'REPO = "{address}"', source, flags=re.M)
            elif cell["id"] == "opening":
                title, rest = source.split("\n", 1)
                rest = re.sub(r"^\n*\[!\[Open in Colab\].*\n", "", rest)
                source = f"{title}\n\n{link}\n{rest}"
            cell["source"] = source.splitlines(keepends=True)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _between(root / "README.md", "badge", badge(address, "notebooks/00_welcome.ipynb"))
    _between(root / "README.md", "clone", f"```\ngit clone https://github.com/{address}\ncd {address.split('/')[1]}\n```")
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    project = re.sub(r"\n\[project\.urls\]\n.*\n", "", project)
    project = project.replace("\n[project.optional", f'\n[project.urls]\nSource = "https://github.com/{address}"\n\n[project.optional')
    (root / "pyproject.toml").write_text(project, encoding="utf-8")


def _between(path, name, text):
    """Replace what stands between two comments in a Markdown file."""
    old = path.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    new = re.sub(f"{start}.*?{end}", lambda match: f"{start}\n{text}\n{end}", old, flags=re.S)
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not re.fullmatch(r"[\w.-]+/[\w.-]+", sys.argv[1]):
        print(f"error: {' '.join(sys.argv[1:]) or 'nothing'!r} is no address; call it with OWNER/REPO", file=sys.stderr)
        sys.exit(2)
    publish(sys.argv[1])
