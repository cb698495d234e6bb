import pytest
import torch
from torch import Tensor, nn

from padrec.catalog import InputError
from padrec.quantization import RQVAE, ResidualKMeans, separation_loss
from padrec.quantization.k_means import squared_distances
from padrec.quantization.rq_vae import Codebook
from padrec.quantization.sinkhorn import sinkhorn


def normal(n: int, d: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tiny_network(epsilon: float = 0.0) -> RQVAE:
    torch.manual_seed(0)
    network = RQVAE(
        6, codebook_sizes=(4, 5, 3), hidden_sizes=(8,), latent_size=2, sinkhorn_epsilon=epsilon, batch_size=7
    )
    return network.double()


def books(network: RQVAE) -> list[Tensor]:
    return [book.vectors.weight for book in network.codebooks if isinstance(book, Codebook)]


def test_codes_are_nearest_to_what_the_slots_before_left_over() -> None:
    network, vectors = tiny_network(), normal(20)
    expected = []
    for latent in network.encoder(vectors):
        residual, row = latent, []
        for book in books(network):
            row.append(int((book - residual).square().sum(1).argmin()))
            residual = residual - book[row[-1]]
        expected.append(row)
    assert network.encode(vectors).tolist() == expected
    assert network(vectors).codes.tolist() == expected


def test_distances_after_a_prefix_lead_to_the_codes() -> None:
    network, vectors = tiny_network(), normal(20)
    codes = network.encode(vectors)
    for slot in range(3):
        distances = network.distances(vectors, codes[:, :slot])
        assert torch.equal(distances.argmin(1), codes[:, slot])


def test_losses_equal_their_equations() -> None:
    network, vectors = tiny_network(), normal(20)
    output = network(vectors)
    residual, losses = network.encoder(vectors), []
    for slot, book in enumerate(books(network)):
        chosen = book[output.codes[:, slot]]
        losses.append((chosen - residual).square().mean())
        residual = residual - chosen
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(output.codebook_loss, expected)
    torch.testing.assert_close(output.commitment_loss, expected)
    torch.testing.assert_close(output.reconstruction, network.decode(output.codes))


def test_the_reconstruction_pulls_straight_at_the_encoder_and_not_at_the_codes() -> None:
    network, vectors = tiny_network(), normal(20)
    latents = network.encoder(vectors)
    output = network(vectors)
    output.reconstruction.square().sum().backward()
    straight = sum(book[output.codes[:, slot]] for slot, book in enumerate(books(network)))
    assert isinstance(straight, Tensor)
    through = straight.detach() + latents - latents.detach()
    gradients = torch.autograd.grad(network.decoder(through).square().sum(), list(network.encoder.parameters()))
    for parameter, expected in zip(network.encoder.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, expected)
    assert all(book.grad is None for book in books(network))


def test_each_loss_moves_its_own_side() -> None:
    network, vectors = tiny_network(), normal(20)
    network(vectors).codebook_loss.backward()
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    assert all(book.grad is not None for book in books(network))
    network.zero_grad()
    network(vectors).commitment_loss.backward()
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())
    assert all(book.grad is None for book in books(network))


def test_sinkhorn_chooses_the_last_codes_in_training_only() -> None:
    network, vectors = tiny_network(epsilon=0.05), normal(20)
    nearest = network.encode(vectors)
    trained = network.train()(vectors).codes
    distances = network.distances(vectors, nearest[:, :2])
    assert torch.equal(trained[:, :2], nearest[:, :2])
    assert torch.equal(trained[:, 2], sinkhorn(distances, 0.05).argmax(1))
    assert not torch.equal(trained[:, 2], nearest[:, 2])
    assert torch.equal(network.eval()(vectors).codes, nearest)


def test_an_items_code_does_not_depend_on_its_batch() -> None:
    network, vectors = tiny_network(epsilon=0.05), normal(20)
    alone = torch.cat([network.encode(vector[None]) for vector in vectors])
    assert torch.equal(network.encode(vectors), alone)


def test_codebooks_start_from_a_residual_k_means_of_the_latents() -> None:
    network, vectors = tiny_network(), normal(50)
    network.initialise_codebooks(vectors, iterations=5, seed=3)
    with torch.no_grad():
        expected = ResidualKMeans((4, 5, 3), iterations=5, fit_items=None, seed=3).fit(network.encoder(vectors))
    for book, centroids in zip(books(network), expected.codebooks, strict=True):
        torch.testing.assert_close(book.detach(), centroids)


def test_dead_codes_move_onto_items_and_living_ones_stay() -> None:
    network, vectors = tiny_network(), normal(20)
    before = [book.clone() for book in books(network)]
    uses = [torch.tensor([5, 0, 2, 0]), torch.ones(5), torch.tensor([0, 1, 1])]
    moved = network.restart_dead_codes(vectors, uses, torch.Generator().manual_seed(0))
    assert [codes.tolist() for codes in moved] == [[1, 3], [], [0]]
    for old, new, codes in zip(before, books(network), moved, strict=True):
        alive = torch.ones(len(old), dtype=torch.bool)
        alive[codes] = False
        assert torch.equal(old[alive], new[alive])
    latents = network.encoder(vectors)
    # An item lies exactly where a dead code has moved to.
    assert squared_distances(books(network)[0][[1, 3]], latents).amin(1).max() < 1e-12


def test_more_dead_codes_than_items_are_no_error() -> None:
    network = tiny_network()
    uses = [torch.zeros(4), torch.zeros(5), torch.zeros(3)]
    moved = network.restart_dead_codes(normal(2), uses, torch.Generator().manual_seed(0))
    assert [len(codes) for codes in moved] == [2, 2, 2]


def test_the_decoder_has_the_encoders_layers_in_reverse() -> None:
    network = tiny_network()
    shapes = [[(m.in_features, m.out_features) for m in part.modules() if isinstance(m, nn.Linear)]
              for part in (network.encoder, network.decoder)]  # fmt: skip
    assert shapes == [[(6, 8), (8, 2)], [(2, 8), (8, 6)]]
    assert network.codebook_sizes == (4, 5, 3)


@pytest.mark.parametrize(
    "arguments", [{"codebook_sizes": ()}, {"codebook_sizes": (0,)}, {"latent_size": 0}, {"sinkhorn_epsilon": -1.0}]
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"(codebook_sizes|latent_size|sinkhorn_epsilon) is .*, expected at least"):
        RQVAE(6, **arguments)  # type: ignore[arg-type]  # wrong on purpose


def reference(latents: Tensor, margin: float) -> Tensor:
    """Item after item, pair after pair."""
    total = latents.new_zeros(())
    for item in latents:
        distances = [(item - other).square().sum().sqrt() for other in latents]
        nearest = min((d for d in distances if d > margin / 1000), default=torch.tensor(torch.inf))
        total = total + torch.log(margin / nearest).clamp(min=0)
    return total / len(latents)


@pytest.mark.parametrize("margin", [0.1, 0.7, 5.0])
def test_the_loss_and_its_gradient_equal_their_equation(margin: float) -> None:
    latents, same = normal(30, 3).requires_grad_(), normal(30, 3).requires_grad_()
    loss, expected = separation_loss(latents, margin), reference(same, margin)
    torch.testing.assert_close(loss, expected)
    if expected > 0:
        loss.backward()
        expected.backward()
        torch.testing.assert_close(latents.grad, same.grad)


def test_items_beyond_a_batch_of_rows_are_neighbours_too() -> None:
    latents = torch.arange(3000.0)[:, None] * 10
    latents[2999] = latents[0] + 1
    torch.testing.assert_close(separation_loss(latents, 4.0), torch.tensor(4.0).log() * 2 / 3000)


def test_close_items_move_apart_and_distant_ones_stay() -> None:
    latents = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0]], requires_grad=True)
    separation_loss(latents, 1.0).backward()
    assert latents.grad is not None
    assert latents.grad[0, 0] > 0 > latents.grad[1, 0]  # a step against the gradient: left and right
    assert not latents.grad[2].any()


def test_equal_items_are_pushed_away_from_others_but_not_from_each_other() -> None:
    latents = torch.tensor([[0.0], [0.0], [0.5]], requires_grad=True)
    loss = separation_loss(latents, 1.0)
    torch.testing.assert_close(loss.detach(), torch.tensor(2.0).log())
    loss.backward()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()
    assert latents.grad.all()


@pytest.mark.parametrize(("n", "margin"), [(1, 1.0), (4, 0.0)])
def test_without_neighbours_there_is_no_loss(n: int, margin: float) -> None:
    latents = torch.ones(n, 2, requires_grad=True)
    loss = separation_loss(latents, margin)
    loss.backward()
    assert loss.item() == 0
    assert latents.grad is not None
    assert not latents.grad.any()
