"""Traffic, measurement and judgement: workloads, traces, live and virtual replay, reports.

Speaks HTTP to routers and workers; may import `router.policies`, `router.records`, `router.types`, `router.prefix`,
`workers.simulated`.
"""
