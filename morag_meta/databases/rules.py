"""What a database asks before it is deleted.

What does not live here: the rules that the proto declares, which are enforced before a method runs.
"""

from __future__ import annotations

from morag_meta.errors import Reason, WrongState
from morag_meta.wording import number_of


def check_childless(documents: int) -> None:
    """Refuse to delete a database that has documents which are not DELETED.

    Raises:
        WrongState: it has some (HAS_CHILDREN).
    """
    if documents:
        raise WrongState(
            f"the database has {number_of(documents, 'document')}; set force to detach them",
            reason=Reason.HAS_CHILDREN,
            metadata={"children": "documents", "count": str(documents)},
        )
