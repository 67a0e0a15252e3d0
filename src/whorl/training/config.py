"""Gone soon: everything is in whorl.options."""

from whorl.options import check, override, to_json  # noqa: F401
