"""When departures stop being random: one warning, with numbers and the likely cause.

`Surge` does no I/O and reads no clock. It gets events, and some of the requests that came to
their end as usual. However many it gets, its memory is bounded.

`detector` gathers and asks. `bands` and `shares` are the questions that are put to a full window
(`look`), `bursts` those about this process itself. `memory` knows the usual, `episodes` what has
been told, `statistics` the tails and intervals. `making` is the one line of a shim.

How it decides
--------------
Departures are gathered into a **window** of at least ``least`` departures and ``seconds`` seconds
(or an hour, if they are that rare). Of one client at most ten a second are taken, so that a
browser which closes a page with all its requests does not count as many; of all, at most
512 in a window. When the window is full, these questions are put to it:

- *Same age, same byte count, same idle time*: are there too many in one narrow band? The
  comparison is the neighbourhood of that band in the same window: however the ages are
  distributed, if it is smooth, a band that is a fraction of its neighbourhood has that fraction
  of the neighbours, give or take a factor of 3. A binomial tail, times the number of bands
  that were looked at, must be less than ``risk``. Only ages are taken of which the moment of the
  departure is known; of the others, which are seen when somebody writes, only those at the
  time-outs that are in use. Where earlier windows are known, the band must not have been
  popular in them.
- *One client, one route*: is its share of the departures larger than its share of the requests
  that nobody left explains, by more than it used to be? The latter comes from samples (ten of the
  requests that begin in a second), so that neither a new customer nor a nightly job looks like a
  fault. What is known of a client or route is weighed against the assumption that
  it is as any other, give or take a factor of 1.8. The upper end of all these uncertainties (3
  standard deviations) is what the binomial tail is computed with. An event stream lasts until
  its client leaves: so a route that is plainly unlike the others is taken as it is, and from one
  on which hardly a request has come to its end as usual nothing follows.
- *Early responses that stay undelivered*: is the share of those cut or reset, of all that were
  treated, larger than the upper end (4 standard deviations) of twice its odds before?
- *A burst at a deploy*: departures which this process itself has caused within 5 seconds, or
  those within the first 10 seconds of the process, as against the upper end of twice the rate
  at other times, by a Poisson tail.

What fits a warning that has been given is set aside before the next question is put, and in all
later windows, and does not become usual: one episode is one warning. It ends
with three windows, or an hour, without it; the same cause is not told again within
``cool_down``.

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
