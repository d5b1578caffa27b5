import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np

    from course import (
        Line,
        Panel,
        Plot,
        Points,
        Slider,
        choose,
        closing,
        exercise,
        explore,
        opening,
        source,
    )
    from cryoinfer.geometry.so3_grid import children, grid_step_radian, rotation_grid

    PIXELS, STRIPS = 64, 400
    METHODS = (
        "best place",
        "best place, marching",
        "all places",
        "all places, marching",
    )


@app.cell
def _():
    opening("finding_poses")
    return


@app.cell
def _():
    mo.md(r"""
    ## From nothing

    No map, no poses: only images. With poses the map would be a sum. With the map poses would be a search. To find a map from nothing is **ab initio** reconstruction. It once took days on a
    cluster, and a guess of the shape to begin with. It takes minutes now. No single trick did it. Five ideas did, and most of them can be seen on a circle.

    *1. Weigh all poses instead of choosing one.* A first map is random. In it the best pose of an image is an accident, and to choose it makes the accident permanent (*Einstein from
    noise*). Averages over all poses, by their responsibilities, lose nothing that is not known yet.

    *2. Begin blurred.* A random start is within reach of the answer only if hills are wide.

    *3. Search coarse, then fine, and only where it matters.*

    *4. Take few images at a time.* In the beginning a few hundred images say as well as all where to go. The first programs that needed no guess took gradient steps from small random
    batches.

    *5. Share the work between images.* Products of many images with many slices are one product of two matrices, which computers do at their full speed; and shifts of an image cost a phase,
    not another slice.

    ## The width of a hill

    A particle's outline on a circle: a rough signal of 64 pixels. How likely is each rotation, if the true one is 0? Use only the waves of up to $K$ periods. With $K = 1$ there is one wide
    hill, and every start climbs it, but its top is off by 10 degrees. With all waves the top is right to a degree, and stands among twenty others, which the signal itself makes. One start
    in fourteen finds it. The share falls about as $1/K$, the width of the peak. In three dimensions it falls as $1/K^3$.

    **Frequency marching** starts with small $K$ and raises it as the poses get better.
    """)
    return


@app.function
def outline():
    """Return a rough signal on a circle, of mean 0 and standard deviation 0.5."""
    waves = np.fft.rfft(np.random.default_rng(5).normal(size=PIXELS))
    waves *= np.exp(-np.arange(len(waves)) / 60.0)
    waves[0] = 0.0
    signal = np.fft.irfft(waves, PIXELS)
    return 0.5 * signal / signal.std()


@app.function
def landscape(most, noise, points=720, seed=2):
    """Return angles (degrees) and the log-likelihood there, of waves up to ``most``."""
    grain = np.random.default_rng(seed).normal(0.0, noise, PIXELS)
    image, model = np.fft.rfft(outline() + grain), np.fft.rfft(outline())
    k = np.arange(1, most + 1)
    angle = np.linspace(-180.0, 180.0, points, endpoint=False)
    phase = np.exp(1j * k * np.radians(angle)[:, None])
    # Twice the real part, over N: both halves of the transform (Parseval).
    fit = 2.0 / PIXELS * (phase * (image * model.conj())[k]).sum(1).real
    return angle, fit / noise**2


@app.function
def climbed(height):
    """Return, for each start on a circle, the index of the top that it climbs to."""
    at = np.arange(len(height))
    while True:
        steps = np.stack([np.roll(height, 1), height, np.roll(height, -1)])[:, at]
        after = (at + steps.argmax(0) - 1) % len(height)
        if np.array_equal(after, at):
            return at
        at = after


@app.cell
def _():
    def hills(most, noise):
        angle, height = landscape(most, noise)
        tops = climbed(height)
        top = height.argmax()
        share = (tops == top).mean()
        y = height - height.max()
        marks = (
            Line(angle, y, "log-likelihood"),
            Points(angle[np.unique(tops)], y[np.unique(tops)], "tops"),
        )
        x = "rotation (degrees)"
        return Plot(
            (Panel(marks, "One image", x, "nats below the top", (-180, 180)),),
            f"{len(np.unique(tops))} tops; {share:.0%} of all starts climb to the highest, which is {abs(angle[top]):.1f} degrees off the truth.",
        )

    explore(
        hills,
        most=Slider("waves up to K", (1, 2, 3, 4, 6, 8, 12, 16, 24, 31), 16),
        noise=Slider("noise, standard deviation", (0.25, 0.5, 1.0, 1.5), 0.5),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Four programs

    400 strips of this signal, each turned by an unknown angle, noise three times the signal (1.5 over 0.5). Each program starts from random numbers and takes 40 rounds. It either chooses
    the best place of each strip, or weighs all; and it uses all waves at once, or marches. The figure gives the correlation of the learned signal with the true one, for 16 starts.

    At noise 0.5 all are right. At 1.5 choosing the best place ends well (above 0.9) in 7 starts of 16. With marching it does in 14. Weighing all places succeeds in all 16, with marching or
    without. On a circle, where a grid of all places is affordable, the first idea is enough. At noise 2 the strips are too few for all four.
    """)
    return


@app.function
def strips(noise, seed):
    """Return the transforms of 400 noisy strips at random places."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, PIXELS, STRIPS)
    clean = outline()[(np.arange(PIXELS) - place[:, None]) % PIXELS]
    return np.fft.rfft(clean + rng.normal(0.0, noise, clean.shape))


@app.function
def from_nothing(method, noise, seed, rounds=40):
    """Return the correlation of the learned signal with the true one, best rotation."""
    data = strips(noise, 100 + seed)
    rng = np.random.default_rng(seed)
    model = np.fft.rfft(rng.normal(0.0, 0.3, PIXELS))
    true = np.fft.rfft(outline())
    # The prior power of an amplitude against the noise in one: a Wiener average.
    ratio = PIXELS * noise**2 / (abs(true) ** 2).mean()
    half = PIXELS // 2
    for number in range(rounds):
        open_to = half
        if "marching" in method:
            open_to = int(2 + (half - 2) * min(1.0, number / (0.7 * rounds)))
        used = np.arange(half + 1) <= open_to
        fit = np.fft.irfft(data * model.conj() * used, PIXELS, axis=1) / noise**2
        if "best" in method:
            weight = np.eye(PIXELS)[fit.argmax(1)]
        else:
            weight = np.exp(fit - fit.max(1)[:, None])
            weight /= weight.sum(1)[:, None]
        model = (np.fft.rfft(weight).conj() * data).sum(0) / (STRIPS + ratio) * used
    found = np.fft.irfft(model, PIXELS)
    fits = np.fft.irfft(np.fft.rfft(found).conj() * true, PIXELS)
    return fits.max() / np.linalg.norm(found) / np.linalg.norm(outline())


@app.cell
def _():
    _noises = (0.5, 1.0, 1.5, 2.0)
    _ends = {
        (method, noise): [from_nothing(method, noise, seed) for seed in range(16)]
        for method in METHODS
        for noise in _noises
    }

    def programs(noise):
        jitter = np.linspace(-0.25, 0.25, 16)
        marks = [
            Points(n + 1 + jitter, np.sort(_ends[method, noise]), f"{n + 1}: {method}")
            for n, method in enumerate(METHODS)
        ]
        marks.append(Line([0.5, 4.5], [0.9, 0.9], dashed=True))
        good = [
            f"{sum(one > 0.9 for one in _ends[method, noise])} of 16 by {method}"
            for method in METHODS
        ]
        title, y = "16 starts of each program", "correlation with the truth"
        ranges = {"x_range": (0.4, 4.6), "y_range": (0.2, 1.02)}
        return Plot(
            (Panel(tuple(marks), title, "program", y, **ranges),),
            "Above 0.9: " + ", ".join(good) + ".",
        )

    explore(programs, noise=Slider("noise, standard deviation", _noises, 1.5))
    return


@app.cell
def _():
    mo.md(r"""
    ## Coarse, then fine

    How many rotations are there? A grid of the program of order $o$ has $72 \times 8^o$, with steps of $60 / 2^o$ degrees: 4,608 at 15 degrees (order 2), 2.4 million at 1.9 degrees (order
    5). A step that turns the rim of the particle by half a period of the finest wave belongs to the Fourier radius $R = 1/\text{step}$, in radian: 3.8 at order 2, 31 at order 5. A
    comparison has $\pi R^2 / 2$ complex numbers. With 49 shifts, the cost of one image is

    $$72 \times 8^o \times 49 \times \pi R^2 / 2 ,$$

    and it grows by 32 at each order. A **nested search** does this at order 2 only. It keeps the best few cells, divides each into its eight children, tries seven shifts about the best,
    keeps as many, and goes on. It fails if the true cell is not among those that are kept: at low resolution several views look alike. Hence keep many when noise is high.
    """)
    return


@app.function
def cost(order, shifts=49):
    """Return products of an exhaustive search of one image."""
    radius = 1.0 / grid_step_radian(order)
    return 72.0 * 8.0**order * shifts * np.pi * radius**2 / 2.0


@app.function
def nested_cost(order, kept):
    """Return products of an exhaustive search at order 2 and of nested ones from there."""
    total = cost(2)
    for level in range(3, order + 1):
        radius = 1.0 / grid_step_radian(level)
        total += kept * 8 * 7 * np.pi * radius**2 / 2.0
    return total


@app.cell
def _():
    def counting(order, kept):
        orders = np.arange(2, 7)
        marks = (
            Line(orders, [cost(one) for one in orders], "exhaustive"),
            Line(orders, [nested_cost(one, kept) for one in orders], "nested"),
            Points([order, order], [cost(order), nested_cost(order, kept)]),
        )
        title, x = "Products for one image", "order of the finest grid"
        return Plot(
            (Panel(marks, title, x, "products", None, (1e6, 1e15), log_y=True),),
            f"Steps of {60 / 2**order:.2g} degrees: {cost(order):.2g} products for all, {nested_cost(order, kept):.2g} nested, "
            f"{cost(order) / nested_cost(order, kept):,.0f} times fewer.",
        )

    explore(
        counting,
        order=Slider("order of the finest grid", (2, 3, 4, 5, 6), 5),
        kept=Slider("cells kept", (4, 16, 64, 256, 1024), 16),
    )
    return


@app.cell
def _():
    source(landscape, from_nothing, nested_cost)
    return


@app.cell
def _():
    mo.md(r"""
    ## Encoders, common lines, and what is left to do

    *Common lines* find relative directions without a map, but only from images with little noise, such as class averages. *Encoders* make the pose a function of the image: no search at all
    once they are trained. With a map that learns at the same time they may stall (*An auto-encoder with physics inside*). Remedies have been to let them propose several poses and keep the
    best, to compare an image with its half turn as well, to search in the first epochs, and to refine each pose by itself in the end. Most programs that infer poses and motions with
    networks now search.

    ## What goes wrong in practice

    - *"Every run gives another blob."* Few images, or too fine too early. Start again several times, at low resolution, and compare the likelihoods of the maps.
    - *"The map is right but small details are doubled."* Two cells next to each other have been kept at equal weight; the finest step is too coarse for the resolution.
    - *"Half of the particles are upside down."* At low resolution the particle looks the same from both ends. Keep more cells, so that later levels may choose.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "How many rotations has the grid of order 4, in thousands?",
        72 * 8**4 / 1000,
        tolerance=1.0,
        unit="thousand",
        hint="Its steps are half as wide as those of order 3, in three directions.",
        explanation="72 times 4,096: 295 thousand.",
    )
    return


@app.cell
def _():
    exercise(
        "The orientation of an image must be searched to half the step (one order finer), exhaustively. By what factor do rotations times coefficients grow?",
        cost(4) / cost(3),
        tolerance=0.5,
        hint="Eight times the rotations. And how many more coefficients?",
        explanation="8 times 4: the radius doubles, and the area of the disc grows by four.",
    )
    return


@app.cell
def _():
    choose(
        "A program opens all frequencies in the first round. Its random map then contains mostly noise at high frequency. What happens to responsibilities of poses?",
        ("Hills of that noise make them.", "They are even.", "They are more precise."),
        0,
        hint="What does a landscape with large K look like, and what if the model is wrong?",
        explanation="Many high and narrow hills at random places. A blurred map has none.",
    )
    return


@app.function
def test_grid_of_the_program():
    """72 * 8^order rotations at 60 / 2^order degrees; eight children a cell."""
    for order in (0, 1, 2):
        grid = rotation_grid(order)
        assert len(grid) == 72 * 8**order
        assert abs(np.degrees(grid_step_radian(order)) - 60.0 / 2**order) < 1e-9
    assert children(grid[:5], grid_step_radian(2)).shape[:2] == (5, 8)
    assert cost(5) / cost(4) == 32.0


@app.function
def test_landscape():
    """The sum over waves is the product of signals, up to a constant (rounding)."""
    _, height = landscape(31, 0.5, points=PIXELS)
    grain = np.random.default_rng(2).normal(0.0, 0.5, PIXELS)
    waves = np.fft.rfft(outline() + grain)
    waves[0] = waves[32] = 0.0  # not among the waves 1 to 31
    seen = np.fft.irfft(waves, PIXELS)
    places = range(-PIXELS // 2, PIXELS // 2)
    both = [
        [np.roll(outline(), sign * q) @ seen / 0.25 for q in places] for sign in (1, -1)
    ]
    assert min(abs(height - one).max() for one in both) < 1e-9
    # One wave, one hill; all starts climb to it.
    assert len(np.unique(climbed(landscape(1, 0.5)[1]))) == 1
    assert len(np.unique(climbed(landscape(31, 0.5)[1]))) > 10


@app.function
def test_four_programs():
    """Counts of the text at noise 1.5 (two may differ by rounding); success at 0.5."""
    good = [
        sum(from_nothing(one, 1.5, seed) > 0.9 for seed in range(16)) for one in METHODS
    ]
    assert abs(np.array(good) - [7, 14, 16, 16]).max() <= 2
    assert min(from_nothing(one, 0.5, 0) for one in METHODS) > 0.95


@app.cell
def _():
    closing(
        "finding_poses",
        library=[
            "cryoinfer.inference.search.global_search",
            "cryoinfer.geometry.so3_grid.rotation_grid",
            "cryoinfer.workflows.resolution_schedule",
            "cryoinfer abinitio",
        ],
        sources=[
            "A. Punjani, J. L. Rubinstein, D. J. Fleet and M. A. Brubaker 2017, cryoSPARC: algorithms for rapid unsupervised cryo-EM structure determination, Nature "
            "Methods.",
            "E. D. Zhong, A. Lerer, J. H. Davis and B. Berger 2021, CryoDRGN2: ab initio neural reconstruction of 3D protein structures from real cryo-EM images, ICCV.",
            "S. Shekarforoush and others 2024, CryoSPIN: improving ab-initio cryo-EM reconstruction with semi-amortized pose inference, NeurIPS.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
