"""An equation as a graph, its gradient, and the program that kernels are generated from."""

from . import pullback as pullback
from .affine import Affine as Affine
from .affine import recurrence as recurrence
from .program import Constants as Constants
from .program import Derivation as Derivation
from .program import Program as Program
from .program import compiles_quickly as compiles_quickly
from .program import program_for as program_for
from .program import program_of as program_of
from .program import read_states as read_states
from .program import reads_input as reads_input
from .program import runs_quickly as runs_quickly
from .pullback import PullBack as PullBack
from .pullback import add as add
from .pullback import summed as summed
from .trace import NUMBERS as NUMBERS
from .trace import Symbol as Symbol
from .trace import needed as needed
from .variant import FLOATS as FLOATS
from .variant import HALVES as HALVES
from .variant import Gradients as Gradients
from .variant import Variant as Variant
from .variant import dtype_name as dtype_name
from .variant import traced_in as traced_in
