"""The gateway: it answers the API's clients, keeps the jobs and their videos, and decides who makes what next. No word of Ray in it."""
