"""How an early response is delivered: drain and respond, then linger and hold.

The response is complete and the request's body is not. `exchange` knows whether it is worth
waiting for the body (drain) and when the response goes out (respond). `linger` knows what becomes
of the connection then: how long it stays open while its client goes on sending, and what the
kernel's word on it means for the response. Both are tables; the shims and
`cleanclose.linger` carry out what they say.
"""
