"""The registry of tasks."""

from ..task import Task
from . import digits, generated, memory, recorded

TASKS: dict[str, Task] = generated.TASKS | digits.TASKS | recorded.TASKS | memory.TASKS
