"""Programs on sequences of numbers, graphs, tables and equations."""

import math

from .registry import program


@program
def temporal_convolutions(torch, same):
    """TCN: dilated causal convolutions with weight normalization, the end chomped off."""
    nn = torch.nn
    weight_norm = torch.nn.utils.parametrizations.weight_norm

    class Chomp1d(nn.Module):
        def __init__(self, chomp_size):
            super().__init__()
            self.chomp_size = chomp_size

        def forward(self, x):
            return x[:, :, : -self.chomp_size].contiguous()

    class TemporalBlock(nn.Module):
        def __init__(self, n_inputs, n_outputs, kernel_size, dilation):
            super().__init__()
            padding = (kernel_size - 1) * dilation
            self.conv1 = weight_norm(nn.Conv1d(n_inputs, n_outputs, kernel_size, padding=padding, dilation=dilation))
            self.conv2 = weight_norm(nn.Conv1d(n_outputs, n_outputs, kernel_size, padding=padding, dilation=dilation))
            self.net = nn.Sequential(
                self.conv1, Chomp1d(padding), nn.ReLU(), nn.Dropout(0.0),
                self.conv2, Chomp1d(padding), nn.ReLU(), nn.Dropout(0.0),
            )  # fmt: skip
            self.downsample = nn.Conv1d(n_inputs, n_outputs, 1) if n_inputs != n_outputs else None
            self.relu = nn.ReLU()

        def forward(self, x):
            res = x if self.downsample is None else self.downsample(x)
            return self.relu(self.net(x) + res)

    class TCN(nn.Module):
        def __init__(self):
            super().__init__()
            self.tcn = nn.Sequential(*(TemporalBlock(2 if i == 0 else 6, 6, 3, 2**i) for i in range(3)))
            self.linear = nn.Linear(6, 1)

        def forward(self, x):
            return self.linear(self.tcn(x)[:, :, -1])

    model = same(TCN())
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    x = same(torch.rand(6, 2, 20))
    y = (x[:, 0] * (x[:, 1] > 0.8)).sum(1, keepdim=True)
    for _ in range(6):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.item()


@program
def time_sequence(torch, same):
    """Sine waves by LSTM cells in double precision, trained by LBFGS, continued into the future."""
    nn = torch.nn

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm1, self.lstm2, self.linear = nn.LSTMCell(1, 5), nn.LSTMCell(5, 5), nn.Linear(5, 1)

        def forward(self, input, future=0):
            outputs = []
            h_t = torch.zeros(input.size(0), 5, dtype=torch.double)
            c_t, h_t2, c_t2 = (torch.zeros_like(h_t) for _ in range(3))
            for input_t in input.split(1, dim=1):
                h_t, c_t = self.lstm1(input_t, (h_t, c_t))
                h_t2, c_t2 = self.lstm2(h_t, (h_t2, c_t2))
                output = self.linear(h_t2)
                outputs += [output]
            for _ in range(future):
                h_t, c_t = self.lstm1(output, (h_t, c_t))
                h_t2, c_t2 = self.lstm2(h_t, (h_t2, c_t2))
                output = self.linear(h_t2)
                outputs += [output]
            return torch.cat(outputs, dim=1)

    seq = same(Sequence().double())
    data = torch.sin(torch.arange(12, dtype=torch.float64) * 0.5 + torch.tensor([[0.0], [1.0], [2.5]]).double())
    optimizer = torch.optim.LBFGS(seq.parameters(), lr=0.8, max_iter=4)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = nn.MSELoss()(seq(data[:, :-1]), data[:, 1:])
        losses.append(loss.item())
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    yield from losses
    with torch.no_grad():
        yield seq(data, future=4)[:, -1].sum().item()


@program
def matrix_factorization(torch, same):
    """Recommendations: embeddings of users and items with biases, Adagrad, evaluation without gradient."""
    nn = torch.nn

    class MatrixFactorization(nn.Module):
        def __init__(self, n_users, n_items, n_factors):
            super().__init__()
            self.user_factors, self.item_factors = nn.Embedding(n_users, n_factors), nn.Embedding(n_items, n_factors)
            self.user_biases, self.item_biases = nn.Embedding(n_users, 1), nn.Embedding(n_items, 1)
            self.mean = nn.Parameter(torch.FloatTensor([3.0]) if hasattr(torch, "FloatTensor") else torch.tensor([3.0]))

        def forward(self, user, item):
            dot = (self.user_factors(user) * self.item_factors(item)).sum(1, keepdim=True)
            return (self.mean + self.user_biases(user) + self.item_biases(item) + dot).squeeze()

    model = same(MatrixFactorization(7, 9, 4))
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1, weight_decay=1e-3)
    users, items = same(torch.randint(0, 7, (20,))), same(torch.randint(0, 9, (20,)))
    ratings = same(torch.randint(1, 6, (20,))).float()
    dataset = torch.utils.data.TensorDataset(users, items, ratings)
    for _ in range(2):
        for user, item, rating in torch.utils.data.DataLoader(dataset, batch_size=8):
            loss = nn.MSELoss()(model(user, item), rating)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()
    with torch.no_grad():
        yield torch.sqrt(torch.mean((model(users, items) - ratings) ** 2)).item()


@program
def graph_convolution(torch, same):
    """A two-layer GCN on a dense normalized adjacency; loss on some of the nodes only."""
    nn, F = torch.nn, torch.nn.functional

    class GraphConvolution(nn.Module):
        def __init__(self, in_features, out_features):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(in_features, out_features))
            self.bias = nn.Parameter(torch.empty(out_features))
            stdv = 1.0 / math.sqrt(self.weight.size(1))
            self.weight.data.uniform_(-stdv, stdv)
            self.bias.data.uniform_(-stdv, stdv)

        def forward(self, input, adj):
            return torch.mm(adj, torch.mm(input, self.weight)) + self.bias

        def __repr__(self):
            return f"{self.__class__.__name__}({self.weight.size(0)} -> {self.weight.size(1)})"

    class GCN(nn.Module):
        def __init__(self):
            super().__init__()
            self.gc1, self.gc2 = GraphConvolution(5, 8), GraphConvolution(8, 3)

        def forward(self, x, adj):
            x = F.dropout(F.relu(self.gc1(x, adj)), 0.0, training=self.training)
            return F.log_softmax(self.gc2(x, adj), dim=1)

    edges = same(torch.randint(0, 12, (2, 30)))
    adj = torch.eye(12)
    adj[edges[0], edges[1]] = 1
    adj = torch.max(adj, adj.t())
    degree = adj.sum(1).pow(-0.5)
    adj = degree[:, None] * adj * degree[None, :]
    features, labels = same(torch.rand(12, 5)), same(torch.randint(0, 3, (12,)))
    train = torch.arange(8)
    model = same(GCN())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=5e-4)
    for _ in range(6):
        model.train()
        optimizer.zero_grad()
        output = model(features, adj)
        loss = F.nll_loss(output[train], labels[train])
        loss.backward()
        optimizer.step()
        yield loss.item()
    model.eval()
    predictions = output.max(1)[1].type_as(labels)
    yield predictions.eq(labels).double().sum().item() / len(labels)


@program
def graph_attention(torch, same):
    """GAT: scores of pairs by a broadcast sum, masked softmax, several heads; multi-label loss."""
    nn, F = torch.nn, torch.nn.functional

    class GATLayer(nn.Module):
        def __init__(self, inputs, outputs, heads):
            super().__init__()
            self.W = nn.Parameter(torch.zeros(heads, inputs, outputs))
            self.a = nn.Parameter(torch.zeros(heads, 2 * outputs, 1))
            nn.init.xavier_uniform_(self.W.data, gain=1.414)
            nn.init.xavier_uniform_(self.a.data, gain=1.414)

        def forward(self, h, adj):
            Wh = torch.einsum("ni,hio->hno", h, self.W)
            half = self.W.size(2)
            e = F.leaky_relu(Wh @ self.a[:, :half] + (Wh @ self.a[:, half:]).transpose(1, 2), 0.2)
            attention = F.softmax(torch.where(adj > 0, e, -9e15 * torch.ones_like(e)), dim=2)
            return F.elu(torch.matmul(attention, Wh)).permute(1, 0, 2).flatten(1)

    adj = (same(torch.rand(9, 9)) > 0.6).float() + torch.eye(9)
    x, targets = same(torch.rand(9, 4)), (same(torch.rand(9, 6)) > 0.5).float()
    layer = same(GATLayer(4, 3, 2))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(6):
        loss = nn.BCEWithLogitsLoss(pos_weight=torch.full((6,), 2.0))(layer(x, adj), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@program
def physics_informed(torch, same):
    """Burgers' equation: first and second derivatives of the network with respect to its inputs, in the loss."""
    nn = torch.nn
    net = same(nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1)))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    x = (same(torch.rand(16, 1)) * 2 - 1).requires_grad_()
    t = same(torch.rand(16, 1)).requires_grad_()
    x0 = torch.linspace(-1, 1, 9).unsqueeze(1)
    start = -torch.sin(math.pi * x0)

    def derivative(y, x):
        return torch.autograd.grad(y, x, grad_outputs=torch.ones_like(y), create_graph=True, retain_graph=True)[0]

    for _ in range(5):
        u = net(torch.cat([x, t], dim=1))
        u_t, u_x = derivative(u, t), derivative(u, x)
        residual = u_t + u * u_x - (0.01 / math.pi) * derivative(u_x, x)
        loss = (residual**2).mean() + ((net(torch.cat([x0, torch.zeros_like(x0)], 1)) - start) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@program
def hamiltonian(torch, same):
    """Hamiltonian network: its gradient is the prediction; rolled out by an integrator."""
    nn = torch.nn
    net = same(nn.Sequential(nn.Linear(2, 16), nn.Softplus(), nn.Linear(16, 1)))
    optimizer = torch.optim.NAdam(net.parameters(), lr=1e-2)
    state = same(torch.randn(10, 2)).requires_grad_()
    wanted = torch.stack([state[:, 1], -torch.sin(state[:, 0])], dim=-1).detach()

    def field(x, create_graph=True):
        (dH,) = torch.autograd.grad(net(x).sum(), x, create_graph=create_graph)
        return torch.stack([dH[..., 1], -dH[..., 0]], -1)

    for _ in range(5):
        loss = (field(state) - wanted).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    x = state.detach()
    for _ in range(3):
        x = (x + 0.1 * field(x.requires_grad_(), create_graph=False)).detach()
    yield x.norm().item()


@program
def mixture_density(torch, same):
    """Mixture density network: logsumexp of log-probabilities, and the mixture's mean."""
    nn = torch.nn

    class MDN(nn.Module):
        def __init__(self, components):
            super().__init__()
            self.hidden = nn.Sequential(nn.Linear(1, 10), nn.Tanh())
            self.pi, self.mu, self.log_sigma = (nn.Linear(10, components) for _ in range(3))

        def forward(self, x):
            h = self.hidden(x)
            return torch.log_softmax(self.pi(h), -1), self.mu(h), self.log_sigma(h).clamp(-5, 5)

    x = torch.linspace(-3, 3, 24).view(-1, 1)
    y = x.sin() + 0.1 * same(torch.randn(24, 1))
    model = same(MDN(3))
    optimizer = torch.optim.Adam([{"params": model.hidden.parameters(), "lr": 1e-2}, {"params": [
        p for n, p in model.named_parameters() if not n.startswith("hidden")]}], lr=2e-2)  # fmt: skip
    for _ in range(6):
        log_pi, mu, log_sigma = model(x)
        log_prob = -0.5 * ((y - mu) / log_sigma.exp()) ** 2 - log_sigma - 0.5 * math.log(2 * math.pi)
        loss = -torch.logsumexp(log_pi + log_prob, dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    yield (log_pi.exp() * mu).sum(1).mean().item()


@program
def gaussian_process(torch, same):
    """Hyper-parameters of a Gaussian process by the marginal likelihood: Cholesky factor and its solve."""
    x = torch.linspace(0, 4, 10, dtype=torch.float64)
    y = torch.sin(2 * x) + 0.1 * same(torch.randn(10, dtype=torch.float64))
    log_length, log_scale, log_noise = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(3))
    optimizer = torch.optim.Adam([log_length, log_scale, log_noise], lr=0.1)
    for _ in range(6):
        squares = torch.cdist(x[:, None], x[:, None]).pow(2)
        K = log_scale.exp() * torch.exp(-0.5 * squares / log_length.exp() ** 2)
        K = K + log_noise.exp() * torch.eye(10, dtype=torch.float64)
        L = torch.linalg.cholesky(K)
        alpha = torch.cholesky_solve(y[:, None], L)
        loss = 0.5 * (y @ alpha).squeeze() + L.diagonal().log().sum() + 5 * math.log(2 * math.pi)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    yield torch.linalg.slogdet(K)[1].item()
