"""What pika 0.10 and 0.12 expect of Python and a present Python no longer has. Import it before pika.

`collections.Callable` moved to `collections.abc` in Python 3.10. pika 0.10's libev adapter has an attribute
named `async`, which is a keyword since 3.7; an empty module in its place makes pika believe that libev is
not installed. The packages themselves stay as they were published.
"""

import collections
import collections.abc
import sys
import types
import warnings

collections.Callable = collections.abc.Callable
sys.modules["pika.adapters.libev_connection"] = types.ModuleType("pika.adapters.libev_connection")
warnings.simplefilter("ignore", SyntaxWarning)
warnings.simplefilter("ignore", DeprecationWarning)
