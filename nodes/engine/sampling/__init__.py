"""Sampling: sigma schedules, flow solvers and the plan of steps over two experts."""
