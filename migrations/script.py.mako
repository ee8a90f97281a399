"""${message}.

Rules (docs/migrations.md says why):

- Code of the version before runs while this runs: add only what it can ignore; remove in a later release.
- Hold locks briefly: no statement here may rewrite or scan a large table under a lock that stops writers.
- MariaDB commits each statement: every step must do nothing where it was done, so use those of
  ``migration_steps`` instead of ``op``, and write data steps so that a second run changes nothing.
- ``downgrade`` undoes it all, and keeps the rows of what stays.
- Name every constraint and index as ``morag_meta/db/schema.py`` does.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from morag_meta.db import migration_steps as steps
from morag_meta.db import types
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Go forward."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Go back."""
    ${downgrades if downgrades else "pass"}
