"""Every picture of the course, drawn one way.

One palette (Okabe and Ito's, safe for colour blindness), one type size that reads from the
back of a room, rows are queries and columns are keys, forbidden cells are hatched and never
look like a zero. Each function draws, shows and stores its picture with ``alt``: a sentence
that says what is to be seen.
"""

from utils.plots.base import (
    BLUE,
    COLOURS,
    DEPTH,
    FORBIDDEN,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    RED,
    SIGNED,
    SKY,
    TAKEN,
    TINTS,
    WEIGHTS,
    YELLOW,
    Figure,
    draw_cells,
    draw_cube,
    draw_level,
    draw_rows,
    draw_tensor,
    draw_tokens,
    name_axes,
    new,
    power_of_ten,
    show,
    taken,
    tick,
    visible,
)
from utils.plots.charts import attention, bands, bars, curve, dots, draw_matrix, ladder, lines, matrices, spread
from utils.plots.explorers import (
    choices,
    draw_attention,
    draw_characters,
    graph,
    listening,
    next_characters,
    normalized,
    sharpening,
    token_rows,
    training_shot,
)
from utils.plots.model import (
    GROWS,
    LOOKS,
    PARTS,
    cache,
    communicate_compute,
    cubes,
    encoder_decoder,
    heads_joined,
    product,
    skeleton,
    stacked,
)
from utils.plots.text import (
    batch_windows,
    contexts,
    overlapping,
    play_layout,
    sizes,
    split_strip,
    sticks,
    text_to_batch,
    timeline,
    trade_off,
)
from utils.plots.training import RIGHT_OR_WRONG, against_base, answer_map, durations, growth, masked_targets, shares, three_stages, trade
