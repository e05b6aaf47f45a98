"""Programs that make new data."""

import math

from .registry import program


@program
def vae(torch, same):
    """Variational auto-encoder with the reparameterization trick and the summed BCE + KL loss."""
    nn, F = torch.nn, torch.nn.functional

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(36, 16)
            self.fc21 = nn.Linear(16, 3)
            self.fc22 = nn.Linear(16, 3)
            self.fc3 = nn.Linear(3, 16)
            self.fc4 = nn.Linear(16, 36)

        def encode(self, x):
            h1 = F.relu(self.fc1(x))
            return self.fc21(h1), self.fc22(h1)

        def reparameterize(self, mu, logvar):
            std = torch.exp(0.5 * logvar)
            eps = same(torch.randn_like(std))
            return mu + eps * std

        def decode(self, z):
            return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

        def forward(self, x):
            mu, logvar = self.encode(x.view(-1, 36))
            return self.decode(self.reparameterize(mu, logvar)), mu, logvar

    def loss_function(recon_x, x, mu, logvar):
        bce = F.binary_cross_entropy(recon_x, x.view(-1, 36), reduction="sum")
        return bce + -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

    model = same(VAE())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    data = same(torch.rand(8, 1, 6, 6))
    for _ in range(6):
        optimizer.zero_grad()
        recon_batch, mu, logvar = model(data)
        loss = loss_function(recon_batch, data, mu, logvar)
        loss.backward()
        optimizer.step()
        yield loss.item()


def dcgan_networks(torch, nz=4, ngf=4, ndf=4):
    nn = torch.nn

    def weights_init(m):
        classname = m.__class__.__name__
        if classname.find("Conv") != -1:
            nn.init.normal_(m.weight.data, 0.0, 0.02)
        elif classname.find("BatchNorm") != -1:
            nn.init.normal_(m.weight.data, 1.0, 0.02)
            nn.init.constant_(m.bias.data, 0)

    generator = nn.Sequential(
        nn.ConvTranspose2d(nz, ngf * 2, 4, 1, 0, bias=False), nn.BatchNorm2d(ngf * 2), nn.ReLU(True),
        nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=False), nn.BatchNorm2d(ngf), nn.ReLU(True),
        nn.ConvTranspose2d(ngf, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(3, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(ndf, ndf * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(ndf * 2), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(ndf * 2, 1, 4, 1, 0, bias=False),
    )  # fmt: skip
    return generator.apply(weights_init), discriminator.apply(weights_init)


@program
def dcgan(torch, same):
    """Two networks, two optimizers: real batch, fake batch detached, then the generator through the discriminator."""
    nn, optim = torch.nn, torch.optim
    netG, netD = map(same, dcgan_networks(torch))
    netD.add_module("sigmoid", nn.Sigmoid())
    criterion = nn.BCELoss()
    optimizerD = optim.Adam(netD.parameters(), lr=0.002, betas=(0.5, 0.999))
    optimizerG = optim.Adam(netG.parameters(), lr=0.002, betas=(0.5, 0.999))
    real = same(torch.rand(4, 3, 16, 16)) * 2 - 1
    for _ in range(4):
        netD.zero_grad()
        label = torch.full((4,), 1.0)
        errD_real = criterion(netD(real).view(-1), label)
        errD_real.backward()
        noise = same(torch.randn(4, 4, 1, 1))
        fake = netG(noise)
        label.fill_(0.0)
        output = netD(fake.detach()).view(-1)
        errD_fake = criterion(output, label)
        errD_fake.backward()
        optimizerD.step()
        netG.zero_grad()
        label.fill_(1.0)
        errG = criterion(netD(fake).view(-1), label)
        errG.backward()
        optimizerG.step()
        yield from (errD_real.item(), errD_fake.item(), errG.item(), output.mean().item())


@program
def wasserstein_gan(torch, same):
    """WGAN-GP: the critic's gradient at mixed pictures, differentiated once more through convolutions."""
    nn = torch.nn
    netG, _ = dcgan_networks(torch)
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 8, 4, 2, 1), nn.GroupNorm(2, 8), nn.SiLU(),
        nn.Conv2d(8, 1, 4, 1, 0), nn.Flatten(),
    )  # fmt: skip
    netG, critic = same(netG), same(critic)
    optimizerD = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    optimizerG = torch.optim.Adam(netG.parameters(), lr=1e-3, betas=(0.0, 0.9))
    real = same(torch.rand(4, 3, 16, 16))

    def gradient_penalty(real, fake):
        alpha = same(torch.rand(real.size(0), 1, 1, 1)).expand_as(real)
        mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
        score = critic(mixed)
        (gradients,) = torch.autograd.grad(
            outputs=score,
            inputs=mixed,
            grad_outputs=torch.ones_like(score),
            create_graph=True,
            retain_graph=True,
        )
        return ((gradients.view(gradients.size(0), -1).norm(2, dim=1) - 1) ** 2).mean()

    for _ in range(4):
        with torch.no_grad():
            fake = netG(same(torch.randn(4, 4, 1, 1)))
        penalty = gradient_penalty(real, fake)
        loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
        optimizerD.zero_grad()
        loss.backward()
        optimizerD.step()
        for p in critic.parameters():
            p.requires_grad = False
        optimizerG.zero_grad()
        lossG = -critic(netG(same(torch.randn(4, 4, 1, 1)))).mean()
        lossG.backward()
        optimizerG.step()
        for p in critic.parameters():
            p.requires_grad = True
        yield from (penalty.item(), loss.item(), lossG.item())


@program
def tied_autoencoder(torch, same):
    """Decoder weights are the encoder's, transposed; a denoising auto-encoder with a sparsity penalty."""
    nn, F = torch.nn, torch.nn.functional

    class AutoEncoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(6, 15))
            self.encoder_bias = nn.Parameter(torch.zeros(6))
            self.decoder_bias = nn.Parameter(torch.zeros(15))
            nn.init.xavier_normal_(self.weight)

        def forward(self, x):
            code = torch.sigmoid(F.linear(x, self.weight, self.encoder_bias))
            return F.linear(code, self.weight.t(), self.decoder_bias), code

    model = same(AutoEncoder())
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
    x = same(torch.rand(10, 15))
    for _ in range(6):
        output, code = model(x * (same(torch.rand(10, 15)) > 0.2))
        average = code.mean(0)
        sparsity = F.kl_div(average.log(), torch.full_like(average, 0.1), reduction="sum")
        loss = F.mse_loss(output, x) + 0.01 * sparsity
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@program
def real_nvp(torch, same):
    """Normalizing flow: affine couplings with masks as buffers, exact log-likelihood, samples by the inverse."""
    nn = torch.nn

    class Coupling(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.register_buffer("mask", mask)
            self.s = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(), nn.Linear(8, 2), nn.Tanh())
            self.t = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(), nn.Linear(8, 2))

        def forward(self, x):
            kept = x * self.mask
            s, t = self.s(kept) * (1 - self.mask), self.t(kept) * (1 - self.mask)
            return kept + (1 - self.mask) * (x * torch.exp(s) + t), s.sum(dim=1)

        def inverse(self, y):
            kept = y * self.mask
            s, t = self.s(kept) * (1 - self.mask), self.t(kept) * (1 - self.mask)
            return kept + (1 - self.mask) * (y - t) * torch.exp(-s)

    flow = same(nn.ModuleList(Coupling(torch.tensor(m)) for m in ([0.0, 1.0], [1.0, 0.0]) * 2))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    x = same(torch.randn(16, 2)) * torch.tensor([2.0, 0.5]) + 1
    for _ in range(6):
        z, log_det = x, torch.zeros(x.shape[0])
        for layer in reversed(flow):
            z, change = layer(z)
            log_det += change
        prior = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)
        loss = -(prior + log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    with torch.no_grad():
        for layer in flow:
            z = layer.inverse(z)
        yield z.std(dim=0).prod().item()


@program
def diffusion(torch, same):
    """DDPM: a network with time embeddings predicts the noise; then the reverse chain."""
    nn, F = torch.nn, torch.nn.functional
    T = 10

    class Denoiser(nn.Module):
        def __init__(self):
            super().__init__()
            self.time = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8))
            self.first, self.last = nn.Conv2d(1, 8, 3, padding="same"), nn.Conv2d(8, 1, 3, padding="same")
            self.norm = nn.GroupNorm(4, 8)

        def forward(self, x, t):
            frequencies = torch.exp(-math.log(10000) * torch.arange(0, 4) / 4)
            angles = t[:, None].float() * frequencies[None]
            embedding = self.time(torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1))
            h = F.silu(self.norm(self.first(x) + embedding[:, :, None, None]))
            return self.last(h)

    model = same(Denoiser())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    betas = torch.linspace(1e-4, 0.2, T)
    alphas = 1.0 - betas
    alphas_bar = torch.cumprod(alphas, dim=0)
    x0 = same(torch.rand(4, 1, 6, 6)) * 2 - 1
    for _ in range(6):
        t = same(torch.randint(0, T, (4,)))
        noise = same(torch.randn_like(x0))
        a = alphas_bar.gather(-1, t).view(-1, 1, 1, 1)
        loss = F.mse_loss(model(a.sqrt() * x0 + (1 - a).sqrt() * noise, t), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    with torch.no_grad():
        x = same(torch.randn(2, 1, 6, 6))
        for i in reversed(range(T)):
            predicted = model(x, torch.full((2,), i, dtype=torch.long))
            x = (x - (1 - alphas[i]) / torch.sqrt(1 - alphas_bar[i]) * predicted) / torch.sqrt(alphas[i])
            if i > 0:
                x += torch.sqrt(betas[i]) * same(torch.randn_like(x))
        yield x.square().mean().item()


@program
def vq_vae(torch, same):
    """Vector quantization: nearest code by distances, commitment loss, gradient straight through."""
    nn, F = torch.nn, torch.nn.functional

    class VectorQuantizer(nn.Module):
        def __init__(self, codes, dim):
            super().__init__()
            self.embedding = nn.Embedding(codes, dim)
            self.embedding.weight.data.uniform_(-1 / codes, 1 / codes)

        def forward(self, inputs):
            inputs = inputs.permute(0, 2, 3, 1).contiguous()
            flat = inputs.view(-1, self.embedding.weight.shape[1])
            distances = (
                torch.sum(flat**2, dim=1, keepdim=True)
                + torch.sum(self.embedding.weight**2, dim=1)
                - 2 * torch.matmul(flat, self.embedding.weight.t())
            )
            indices = torch.argmin(distances, dim=1).unsqueeze(1)
            encodings = torch.zeros(indices.shape[0], self.embedding.weight.shape[0])
            encodings.scatter_(1, indices, 1)
            quantized = torch.matmul(encodings, self.embedding.weight).view(inputs.shape)
            loss = F.mse_loss(quantized, inputs.detach()) + 0.25 * F.mse_loss(quantized.detach(), inputs)
            quantized = inputs + (quantized - inputs).detach()
            average = torch.mean(encodings, dim=0)
            perplexity = torch.exp(-torch.sum(average * torch.log(average + 1e-10)))
            return loss, quantized.permute(0, 3, 1, 2).contiguous(), perplexity

    encoder = same(nn.Conv2d(1, 4, 4, stride=2, padding=1))
    quantizer = same(VectorQuantizer(5, 4))
    decoder = same(nn.Sequential(nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1), nn.Sigmoid()))
    parameters = [*encoder.parameters(), *quantizer.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=5e-3, amsgrad=False)
    x = same(torch.rand(3, 1, 8, 8))
    for _ in range(6):
        optimizer.zero_grad()
        vq_loss, quantized, perplexity = quantizer(encoder(x))
        loss = F.mse_loss(decoder(quantized), x) / 0.1 + vq_loss
        loss.backward()
        optimizer.step()
        yield loss.item()
        yield perplexity.item()
