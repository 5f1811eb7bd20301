"""The equations: one model, one short file."""

from .firing import Model
from .leaky import LEAKY as LEAKY

MODELS: dict[str, Model] = {"leaky": LEAKY}
"""Every model of the library by name; the test matrix is driven by it."""
