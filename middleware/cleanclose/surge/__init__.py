"""When departures stop being random: one warning, with numbers and the likely cause.

`Surge` does no I/O and reads no clock. It gets events, and some of the requests that came to
their end as usual. However many it gets, its memory is bounded.

`detector` collects events and asks questions. `bands` and `shares` are the questions about a full
window (`look`), `bursts` those about this process itself. `memory` knows what is usual, `episodes`
the warnings so far, `statistics` the tails and intervals. `making` is the one line that a shim
needs.

How it decides
--------------
Departures are gathered into a **window** of at least ``least`` departures and ``seconds`` seconds
(or an hour, if they are that rare). A window takes at most ten departures a second from one client,
so that a browser that closes a page with all its requests does not count as many; it takes at most
512 in all. When the window is full, the detector asks these questions:

- *Same age, same byte count, same idle time*: are there too many in one narrow band? The
  comparison is the neighbourhood of that band in the same window: however the ages are
  distributed, if it is smooth, a band that is a fraction of its neighbourhood has that fraction
  of the neighbours, give or take a factor of 3. A binomial tail, times the number of bands
  that were looked at, must be less than ``risk``. It uses only ages for which the moment of the
  departure is known; departures seen at a write count only at time-outs in common use. If there are
  earlier windows, the band must not have been popular in them.
- *One client, one route*: is its share of the departures larger than its share of the requests
  that nobody left explains, by more than it used to be? The latter comes from samples (ten of the
  requests that begin in a second), so that neither a new customer nor a nightly job looks like a
  fault. The detector weighs its knowledge of a client or route against the assumption that it is
  like any other, give or take a factor of 1.8. It computes the binomial tail with the upper end of
  all these uncertainties (3 standard deviations). An event stream lasts until its client leaves: so
  a route that is plainly unlike the others is accepted as it is, and a route on which hardly any
  request has ended as usual proves nothing.
- *Early responses that stay undelivered*: is the share of those cut or reset, of all that were
  treated, larger than the upper end (4 standard deviations) of twice its odds before?
- *A burst at a deploy*: departures that this process itself has caused within 5 seconds, or
  departures within its first 10 seconds, compared with the upper end of twice the rate at other
  times, by a Poisson tail.

Departures that fit an earlier warning are set aside before the next question and in all later
windows, and do not become usual: one episode is one warning. It ends after three windows, or an
hour, without such departures; the same cause is not reported again within ``cool_down``.

False alarms
------------
A rate is never compared with another one, save for *burst at a deploy*: departures may come at
any rate, and with the day. With the defaults (a window takes 10 seconds or more, five questions,
``risk`` 1e-9) independent departures raise at most 8640 x 5 x 1e-9, that is 4e-5 warnings a day
and process; and the slack above is there because real ones are not independent. What a
simulation with heavy tails, clumps and a day's swing has raised, ``python -m benchmarks.surge``
says.
"""

from cleanclose.core.settings import SurgeThresholds
from cleanclose.surge.detector import Surge
from cleanclose.surge.making import make_reporter

__all__ = ["Surge", "SurgeThresholds", "make_reporter"]
