"""How an early response is delivered: drain and respond, then linger and hold.

The response is complete and the request's body is not. `exchange` decides whether it is worth
waiting for the body (drain) and when the response goes out (respond). `linger` decides what happens
to the connection then: how long it stays open while its client goes on sending, and what the
kernel's figures mean for the response. Both are tables; the shims and `cleanclose.linger` carry out
their steps.
"""
