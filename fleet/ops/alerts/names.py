"""The names of all alerts: what a silence can be for. A test compares them with the manual."""

#: Alerts of the fleet, which its store remembers.
FLEET = (
    *("agent_offline", "agent_removed", "approval_needed", "beat_dead", "budget", "crash_loop"),
    *("data_lost", "dead_letters", "delivery_back", "delivery_down", "intake_refused", "memory"),
    *("provider_open", "ran_twice", "remote_control", "spool_refused", "store_lost"),
    *("stuck_queue", "token_repeated", "unpriced_model", "wakeups", "writes_lost"),
)
#: Alerts of one machine, which need no store.
MACHINE = (
    *("breaker_open", "spool_aside", "spool_damaged", "spool_full", "spool_holds"),
    *("spool_nearly_full", "spool_refuses", "spool_unreadable", "store_away"),
)
NAMES = (*FLEET, *MACHINE)
