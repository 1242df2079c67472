"""Dead properties: kept as they came, in order of their names."""

from __future__ import annotations

import json
from collections.abc import Sequence

from davsql.errors import TooManyProperties
from davsql.model import DeadProperty, Inode, PropertyUpdate
from davsql.store.options import StoreOptions
from davsql.store.transaction import ReadTx, WriteTx

HAS_PROPERTIES = "SELECT EXISTS (SELECT 1 FROM properties)"
PROPERTIES_OF = """
SELECT p.inode, p.namespace, p.name, p.xml
FROM json_each(:inodes) AS wanted CROSS JOIN properties AS p ON p.inode = wanted.value
ORDER BY p.inode, p.namespace, p.name
"""


def properties_of(tx: ReadTx, inodes: Sequence[Inode]) -> dict[Inode, list[DeadProperty]]:
    """The dead properties of nodes; nodes without any are left out."""
    if not tx.value(HAS_PROPERTIES):
        return {}
    found: dict[Inode, list[DeadProperty]] = {}
    for inode, *columns in tx.rows(PROPERTIES_OF, {"inodes": json.dumps(inodes)}):
        found.setdefault(inode, []).append(DeadProperty._make(columns))
    return found


SET_PROPERTY = """
INSERT INTO properties (inode, namespace, name, xml) VALUES (:inode, :namespace, :name, :xml)
ON CONFLICT (inode, namespace, name) DO UPDATE SET xml = excluded.xml
"""
REMOVE_PROPERTY = "DELETE FROM properties WHERE inode = :inode AND namespace = :namespace AND name = :name"
COUNT_PROPERTIES = "SELECT count(*) FROM properties WHERE inode = ?"


def update_properties(tx: WriteTx, inode: Inode, updates: Sequence[PropertyUpdate], options: StoreOptions) -> None:
    """Apply the steps of a PROPPATCH in their order; removing what is not there succeeds (RFC 4918 14.23).

    Raises:
        TooManyProperties: a value is too long, or the node would have too many.
    """
    for update in updates:
        if update.xml is None:
            tx.change(REMOVE_PROPERTY, {"inode": inode, "namespace": update.namespace, "name": update.name})
            continue
        if len(update.xml.encode()) > options.max_property_bytes:
            raise TooManyProperties(f"a property may have {options.max_property_bytes} bytes at most")
        tx.change(SET_PROPERTY, {"inode": inode, **update._asdict()})
    if tx.value(COUNT_PROPERTIES, (inode,)) > options.max_properties:
        raise TooManyProperties(f"a resource may have {options.max_properties} dead properties at most")
