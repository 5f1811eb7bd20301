"""Pictures of the reference: the response of every neuron to a step of current."""

from pathlib import Path

STEPS, FROM, UNTIL = 120, 10, 90
SOFT = "#808080"  # axes and text, legible on white and on black
FIRST, SECOND = "#0a86cc", "#d9771f"
CURRENT = {"Izhikevich": 10.0, "QIF": 25.0, "EIF": 25.0, "Lapicque": 0.3, "Leaky": 0.3, "ALIF": 0.4, "RALIF": 0.4}
ARGUMENTS = {
    "Leaky": {"beta": 0.9},
    "RLeaky": {"beta": 0.9, "all_to_all": False, "V": 0.3},
    "Synaptic": {"alpha": 0.8, "beta": 0.9},
    "RSynaptic": {"alpha": 0.8, "beta": 0.9, "all_to_all": False, "V": 0.3},
    "Lapicque": {"beta": 0.9},
    "Alpha": {"alpha": 0.9, "beta": 0.8},
    "DeltaLeaky": {"beta": 0.9},
}


def draw_neurons(folder: Path, paths: list[str]) -> None:
    """Draw a picture of each neuron that runs on a current of one value, where there is none yet."""
    folder.mkdir(parents=True, exist_ok=True)
