"""What the HTML pages of training share: templates, escaping, plots inside the file."""

import base64
import io
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure as Canvas

import infer.report

PARTS = Path(__file__).parent / "templates"
STYLE = Path(infer.report.__file__).parent / "templates"


def environment(*templates: Path) -> Environment:
    """For templates in these folders, with the parts that all pages share and the evidence pages' style."""
    return Environment(
        loader=FileSystemLoader([*templates, PARTS, STYLE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def as_png(canvas: Canvas) -> str:
    """A figure as a data URI."""
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=130)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
