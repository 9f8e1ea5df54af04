"""`pangate` whose guards do not see what is reserved: the control of the race for refunds, run as a module.

A refund is admitted if it fits what was captured and not yet refunded; that others are under way counts for nothing.
Nothing else differs.
"""

from __future__ import annotations

from gateway import cli
from gateway.pure import lifecycle
from gateway.pure.lifecycle_machine import Command

_permits = lifecycle.permits


def permits(payment: lifecycle.Payment, command: Command, amount: int) -> bool:
    return _permits(payment._replace(pending=(0,) * len(payment.pending)), command, amount)


if __name__ == "__main__":
    lifecycle.permits = permits
    cli.main()
