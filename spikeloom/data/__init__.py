"""Event data: readers, frames, batches, augmentations, and models that turn sound and images into events."""

from ._augment import EventDrop as EventDrop
from ._augment import SpatialShift as SpatialShift
from ._augment import TimeJitter as TimeJitter
from ._batches import Batch as Batch
from ._batches import collate as collate
from ._batches import mask_of as mask_of
from ._camera import EventCamera as EventCamera
from ._camera import saccades as saccades
from ._ear import BasilarMembrane as BasilarMembrane
from ._ear import BushyCell as BushyCell
from ._ear import HairCell as HairCell
from ._ear import inner_ear as inner_ear
from ._events import make_events as make_events
from ._frames import to_frames as to_frames
from ._hdf5 import SpikeFile as SpikeFile
from ._hdf5 import read_shd as read_shd
from ._hdf5 import write_shd as write_shd
from ._mel import level_crossing as level_crossing
from ._mel import mel_events as mel_events
from ._mel import mel_spectrogram as mel_spectrogram
from ._readers import read_aedat as read_aedat
from ._readers import read_dat as read_dat
from ._readers import read_nmnist as read_nmnist
from ._readers import read_stmnist as read_stmnist

__all__ = [
    "BasilarMembrane",
    "Batch",
    "BushyCell",
    "EventCamera",
    "EventDrop",
    "HairCell",
    "SpatialShift",
    "SpikeFile",
    "TimeJitter",
    "collate",
    "inner_ear",
    "level_crossing",
    "make_events",
    "mask_of",
    "mel_events",
    "mel_spectrogram",
    "read_aedat",
    "read_dat",
    "read_nmnist",
    "read_shd",
    "read_stmnist",
    "saccades",
    "to_frames",
    "write_shd",
]
