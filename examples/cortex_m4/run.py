"""Train on handwritten digits, write the network as C, build it for a Cortex-M4 and run its test on an emulated board.

    make cortex-m4

It requires Debian's gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm, and scikit-learn and tqdm. QEMU
emulates the instructions, not their duration.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import spikeloom as snn
from spikeloom import demo

HERE = Path(__file__).parent
CPU = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
COMPILE = ("arm-none-eabi-gcc", *CPU, "-std=gnu99", "-O2", "-Wall", "-Wextra")
LINK = (str(HERE / "start.c"), "-T", str(HERE / "board.ld"), "--specs=rdimon.specs", "-lm")
EMULATE = ("qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none")
SEMIHOSTING = ("-semihosting-config", "enable=on,target=native", "-kernel")
EPOCHS = 5


def main() -> int:
    missing = [tool for tool in (COMPILE[0], EMULATE[0]) if shutil.which(tool) is None]
    if missing:
        print(
            f"{' and '.join(missing)} not found; on Debian: "
            "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
        )
        return 1
    digits = demo.load()
    torch.manual_seed(0)
    net = demo.network()
    demo.train(net, digits, EPOCHS)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in ("float", "int8"):
            source = Path(folder) / f"{number}.c"
            print(snn.export_c(net, digits.train[: demo.BATCH], source, number, steps=demo.STEPS))
            failed += run(source)
    return int(failed > 0)


def run(source: Path) -> int:
    """Print the size of the code and the result of the generated test; returns 0 if all outputs are equal."""
    code, program = source.with_suffix(".o"), source.with_suffix(".elf")
    subprocess.run([*COMPILE, "-c", str(source), "-o", str(code)], check=True)
    subprocess.run(["arm-none-eabi-size", str(code)], check=True)
    subprocess.run([*COMPILE, "-DNET_TEST", str(source), *LINK, "-o", str(program)], check=True)
    return subprocess.run([*EMULATE, *SEMIHOSTING, str(program)], timeout=120, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
