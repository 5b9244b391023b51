"""Lightning: invoices, payments and keysends of the node's own, within the daemon's budget.

`service` has the commands, `paying` sees every payment to its end, `ends` says how it ended, `keys` knows payments that
are asked for again, `asking` reads what callers ask for, and `arrivals` shows what others have paid.
"""

from impervious.services.lightning.service import Invoiced, LightningService

__all__ = ["Invoiced", "LightningService"]
