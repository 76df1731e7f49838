"""Who has solved what: ``python -m utils.progress notebooks/`` reads saved notebooks and runs nothing.

With a folder that holds one folder a student, it prints the class's table, and writes it
as CSV with ``--csv FILE``. What counts is the stored output of each exercise's check.
"""

import argparse
import csv
import json
import re
import sys
from pathlib import Path

CHAPTER = re.compile(r"(\d\d)_\w+\.ipynb")
VERDICT = re.compile(r"^(\d+\.\d+) (✓|✗|not attempted yet)", re.M)


def read(path):
    """{exercise: True if solved} from one saved notebook. Raises ValueError where it cannot be one of the course's."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = {cell["id"]: "".join(cell["source"]) for cell in cells}
        outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
        said = "".join("".join(output.get("text", "")) for output in outputs)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    except (KeyError, TypeError, AttributeError):
        raise ValueError("is not a notebook of this course") from None
    cards = [name.removeprefix("stub-").replace("-", ".") for name in sources if name.startswith("stub-")]
    if "setup" not in sources:
        raise ValueError("is not a notebook of this course")
    verdicts = {number: verdict == "✓" for number, verdict in VERDICT.findall(said)}
    if cards and not verdicts:
        raise ValueError("was saved before its checks were run")
    return {number: verdicts.get(number, False) for number in cards}


def read_folder(folder):
    """({exercise: solved} over all chapter notebooks of a folder, complaints about the rest)."""
    solved, complaints = {}, []
    for path in sorted(folder.glob("*.ipynb")):
        if not CHAPTER.fullmatch(path.name):
            complaints.append(f"{path.name} is skipped: its name is not that of a chapter")
            continue
        try:
            solved |= read(path)
        except ValueError as error:
            complaints.append(f"{path.name} is skipped: it {error}")
    return solved, complaints


def chapter_of(number):
    """The chapter of an exercise: 03 for 3.2."""
    return f"{int(number.split('.')[0]):02d}"


def chapters(solved):
    """{chapter: (solved, all)} from {exercise: solved}."""
    counts = {}
    for number, done in solved.items():
        chapter = chapter_of(number)
        got, all_ = counts.get(chapter, (0, 0))
        counts[chapter] = (got + done, all_ + 1)
    return dict(sorted(counts.items()))


def one_learner(solved):
    lines = []
    for chapter, (got, all_) in chapters(solved).items():
        marks = [f"{number} {'✓' if done else '·'}" for number, done in solved.items() if chapter_of(number) == chapter]
        lines.append(f"{chapter}   {got} of {all_}   {'  '.join(marks)}")
    return "\n".join([*lines, f"all  {sum(solved.values())} of {len(solved)}"])


def class_table(students):
    """Rows of a table, a header first: each student's solved exercises, chapter by chapter."""
    names = sorted({chapter for solved in students.values() for chapter in chapters(solved)})
    rows = [["student", *names, "all"]]
    for student, solved in students.items():
        counts = chapters(solved)
        rows.append([student, *(str(counts.get(name, (0, 0))[0]) for name in names), str(sum(solved.values()))])
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m utils.progress", description="Which exercises are solved.")
    parser.add_argument("folder", type=Path, help="a folder of notebooks, or of one folder a student")
    parser.add_argument("--csv", type=Path, help="write the class's table here as well")
    args = parser.parse_args(argv)
    if not args.folder.is_dir():
        print(f"error: there is no folder {args.folder}", file=sys.stderr)
        return 2
    if list(args.folder.glob("*.ipynb")):
        solved, complaints = read_folder(args.folder)
        print(one_learner(solved))
    else:
        students, complaints = {}, []
        for folder in sorted(path for path in args.folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            students[folder.name], words = read_folder(folder)
            complaints += [f"{folder.name}/{word}" for word in words]
        rows = class_table(students)
        widths = [max(map(len, column)) for column in zip(*rows)]
        print("\n".join("  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip() for row in rows))
        if args.csv:
            with open(args.csv, "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
    for words in complaints:
        print(words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
