"""Many cheap cases in one test: the overhead of a test is a hundred times what some of them take."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch

Test = Callable[..., None]


def for_each(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Test], Test]:
    """As `pytest.mark.parametrize`, within one test, which fails with a list of all cases that fail.

    Each case starts from the seed of a test. Fixtures are shared by the cases.
    """
    given = (names,) if isinstance(names, str) else names
    rows = [(case,) if isinstance(names, str) else tuple(case) for case in cases]

    def decorate(test: Test) -> Test:
        signature = inspect.signature(test)

        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            failed = []
            for row in rows:
                torch.manual_seed(20)
                try:
                    test(*args, **kwargs, **dict(zip(given, row, strict=True)))
                except Exception as error:
                    failed.append((row, error))
            if failed:
                message = "\n".join(f"{', '.join(map(str, row))}: {error!r}" for row, error in failed)
                raise AssertionError(f"{len(failed)} of {len(rows)} cases fail\n{message}") from failed[0][1]

        assert rows, "no cases"
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[p for name, p in signature.parameters.items() if name not in given]
        )
        return run

    return decorate
