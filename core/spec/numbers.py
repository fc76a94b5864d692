"""Numbers and flags of request bodies, without conversions.

pydantic would take `true`, `"1"` and `2.0` as integers. OpenAI refuses all three, and so do these
types. A `Number` is finite, and may be written without a fraction. A test checks that
request bodies use no other types (`tests/architecture/test_strict_numbers.py`).
"""

from typing import Annotated

from pydantic import AllowInfNan, Strict

Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict(), AllowInfNan(False)]
Flag = Annotated[bool, Strict()]
