"""Published MagCache settings and magnitude curves (Zehong-Ma/MagCache, MagCache4Wan2.2/magcache_generate.py).

Measured with Wan 2.2 T2V A14B at 40 UniPC steps, shift 12: the first 26 steps belong to the high-noise expert. Across the switch a ratio means
nothing, so each expert's curve starts at 1.
"""

from .caching import CacheSettings, MagnitudeCurve
from .schedules import timestep, unipc_sigmas

PUBLISHED_SETTINGS = CacheSettings(max_error=0.06, max_skips=2, retention=0.4)

_TIMESTEPS = [float(timestep(sigma)) for sigma in unipc_sigmas(40, 12.0).tolist()[:-1]]

_HIGH = (
    (1.0, 1.0), (1.00124, 1.00155), (0.99822, 0.99851), (0.99696, 0.99687), (0.99703, 0.99732), (0.9966, 0.99679),
    (0.99602, 0.99658), (0.99578, 0.99664), (0.99484, 0.9949), (0.99633, 0.996), (0.99659, 0.99683), (0.99534, 0.99549),
    (0.99584, 0.99577), (0.99681, 0.99694), (0.99563, 0.99554), (0.9944, 0.99473), (0.99594, 0.9964), (0.99466, 0.99461),
    (0.99453, 0.99481), (0.99389, 0.99365), (0.99391, 0.99406), (0.99354, 0.99361), (0.99283, 0.99278), (0.99268, 0.99263),
    (0.99057, 0.99091), (0.99125, 0.99126),
)
_LOW = (
    (1.0, 1.0), (0.98808, 0.98852), (0.98765, 0.98736), (0.9851, 0.98535), (0.98311, 0.98339), (0.9805, 0.9806),
    (0.97776, 0.97771), (0.97278, 0.97286), (0.96731, 0.96728), (0.95857, 0.95855), (0.94385, 0.94385), (0.92118, 0.921),
    (0.88108, 0.88076), (0.80263, 0.80181),
)

T2V_A14B_HIGH = MagnitudeCurve(tuple(_TIMESTEPS[:26]), _HIGH)
T2V_A14B_LOW = MagnitudeCurve(tuple(_TIMESTEPS[26:]), _LOW)
