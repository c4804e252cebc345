"""The hosted endpoint's contract: its request and answer, its errors, and an OpenAPI document of both."""
