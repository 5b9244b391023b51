"""Federation: who asks to be remembered, who is, and for how long.

`service` has the commands and hears what other nodes say; `pending` keeps requests that wait for the operator's word.
"""

from impervious.services.federate.service import FederateService

__all__ = ["FederateService"]
