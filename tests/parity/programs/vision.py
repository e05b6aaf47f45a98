"""Programs that look at pictures."""

from .registry import program


def pictures(torch, same, *shape):
    return same(torch.rand(*shape))


@program
def resnet(torch, same):
    """ResNet with basic blocks for 32 x 32 pictures; SGD with momentum and weight decay, then evaluation."""
    nn, F = torch.nn, torch.nn.functional

    class BasicBlock(nn.Module):
        expansion = 1

        def __init__(self, in_planes, planes, stride=1):
            super().__init__()
            self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=1, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.shortcut = nn.Sequential()
            if stride != 1 or in_planes != self.expansion * planes:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(in_planes, self.expansion * planes, kernel_size=1, stride=stride, bias=False),
                    nn.BatchNorm2d(self.expansion * planes),
                )

        def forward(self, x):
            out = F.relu(self.bn1(self.conv1(x)), inplace=True)
            out = self.bn2(self.conv2(out))
            out += self.shortcut(x)
            return F.relu(out)

    class ResNet(nn.Module):
        def __init__(self, num_blocks, widths):
            super().__init__()
            self.in_planes = widths[0]
            self.conv1 = nn.Conv2d(3, widths[0], kernel_size=3, stride=1, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(widths[0])
            self.layers = nn.Sequential(
                *(self._make_layer(w, n, 1 + (i > 0)) for i, (w, n) in enumerate(zip(widths, num_blocks, strict=True)))
            )
            self.linear = nn.Linear(widths[-1], 10)
            for m in self.modules():
                if isinstance(m, nn.Conv2d):
                    nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                elif isinstance(m, nn.BatchNorm2d):
                    nn.init.constant_(m.weight, 1)
                    nn.init.constant_(m.bias, 0)

        def _make_layer(self, planes, num_blocks, stride):
            layers = []
            for s in [stride] + [1] * (num_blocks - 1):
                layers.append(BasicBlock(self.in_planes, planes, s))
                self.in_planes = planes * BasicBlock.expansion
            return nn.Sequential(*layers)

        def forward(self, x):
            out = self.layers(F.relu(self.bn1(self.conv1(x))))
            out = F.avg_pool2d(out, 4)
            return self.linear(out.view(out.size(0), -1))

    net = same(ResNet([2, 1, 1, 1], [4, 8, 8, 16]))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    inputs, targets = pictures(torch, same, 8, 3, 32, 32), same(torch.randint(0, 10, (8,)))
    for _ in range(4):
        net.train()
        optimizer.zero_grad()
        outputs = net(inputs)
        loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield loss.item()
    net.eval()
    with torch.no_grad():
        yield criterion(net(inputs), targets).item()
        _, predicted = net(inputs).max(1)
        yield predicted.eq(targets).sum().item()


@program
def unet(torch, same):
    """U-Net: transposed convolutions up, skips concatenated, Dice and cross-entropy together."""
    nn, F = torch.nn, torch.nn.functional

    def double_conv(inputs, outputs):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        )  # fmt: skip

    class Up(nn.Module):
        def __init__(self, inputs, outputs, bilinear):
            super().__init__()
            if bilinear:
                self.up = nn.Sequential(
                    nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
                    nn.Conv2d(inputs, inputs // 2, 1),
                )
            else:
                self.up = nn.ConvTranspose2d(inputs, inputs // 2, kernel_size=2, stride=2)
            self.conv = double_conv(inputs, outputs)

        def forward(self, x1, x2):
            x1 = self.up(x1)
            dy, dx = x2.size()[2] - x1.size()[2], x2.size()[3] - x1.size()[3]
            x1 = F.pad(x1, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            return self.conv(torch.cat([x2, x1], dim=1))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.inc = double_conv(3, 4)
            self.down1 = nn.Sequential(nn.MaxPool2d(2), double_conv(4, 8))
            self.down2 = nn.Sequential(nn.MaxPool2d(2), double_conv(8, 16))
            self.up1 = Up(16, 8, bilinear=False)
            self.up2 = Up(8, 4, bilinear=True)
            self.outc = nn.Conv2d(4, 2, kernel_size=1)

        def forward(self, x):
            x1 = self.inc(x)
            x2 = self.down1(x1)
            x3 = self.down2(x2)
            return self.outc(self.up2(self.up1(x3, x2), x1))

    def dice(probabilities, target):
        inter = 2 * (probabilities * target).sum(dim=(-1, -2))
        return 1 - ((inter + 1e-6) / (probabilities.sum(dim=(-1, -2)) + target.sum(dim=(-1, -2)) + 1e-6)).mean()

    net = same(UNet())
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, weight_decay=1e-8, momentum=0.9)
    images, masks = pictures(torch, same, 2, 3, 14, 18), same(torch.randint(0, 2, (2, 14, 18)))
    for _ in range(5):
        predicted = net(images)
        one_hot = F.one_hot(masks, 2).permute(0, 3, 1, 2).float()
        loss = nn.CrossEntropyLoss()(predicted, masks) + dice(F.softmax(predicted, dim=1).float(), one_hot)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        yield loss.item()


@program
def vision_transformer(torch, same):
    """Patches by a strided convolution, class token, nn.MultiheadAttention, head on the class token."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, dim, heads):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.0), nn.Linear(2 * dim, dim))

        def forward(self, x):
            y = self.norm1(x)
            y, self.weights = self.attn(y, y, y)
            x = x + y
            return x + self.mlp(self.norm2(x))

    class ViT(nn.Module):
        def __init__(self, image=16, patch=4, dim=12, depth=2, heads=3, classes=5):
            super().__init__()
            self.patches = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.pos_embed = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, dim))
            self.blocks = nn.ModuleList([Block(dim, heads) for _ in range(depth)])
            self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
            nn.init.trunc_normal_(self.cls_token, std=0.02)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)[:, 0])

    model = same(ViT())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=2),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4),
        ],
        milestones=[2],
    )
    x, y = pictures(torch, same, 4, 3, 16, 16), torch.tensor([0, 1, 2, 4])
    for _ in range(6):
        loss = nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield loss.item()
        yield scheduler.get_last_lr()[0]
    yield model.blocks[0].weights.square().sum().item()


@program
def super_resolution(torch, same):
    """Sub-pixel convolution (ESPCN): orthogonal initialisation, PixelShuffle, PSNR."""
    nn, init = torch.nn, torch.nn.init

    class Net(nn.Module):
        def __init__(self, upscale_factor):
            super().__init__()
            self.relu = nn.ReLU()
            self.conv1 = nn.Conv2d(1, 8, (5, 5), (1, 1), (2, 2))
            self.conv2 = nn.Conv2d(8, 8, (3, 3), (1, 1), (1, 1))
            self.conv3 = nn.Conv2d(8, upscale_factor**2, (3, 3), (1, 1), (1, 1))
            self.pixel_shuffle = nn.PixelShuffle(upscale_factor)
            init.orthogonal_(self.conv1.weight, init.calculate_gain("relu"))
            init.orthogonal_(self.conv2.weight, init.calculate_gain("relu"))
            init.orthogonal_(self.conv3.weight)

        def forward(self, x):
            return self.pixel_shuffle(self.conv3(self.relu(self.conv2(self.relu(self.conv1(x))))))

    model = same(Net(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    small, large = pictures(torch, same, 2, 1, 6, 7), pictures(torch, same, 2, 1, 18, 21)
    for _ in range(6):
        optimizer.zero_grad()
        loss = nn.MSELoss()(model(small), large)
        loss.backward()
        optimizer.step()
        yield loss.item()
    with torch.no_grad():
        yield (10 * torch.log10(1 / nn.functional.mse_loss(model(small).clamp(0.0, 1.0), large))).item()


@program
def siamese(torch, same):
    """One network for all pictures: triplet margin, contrastive and cosine losses."""
    nn, F = torch.nn, torch.nn.functional

    class Embedder(nn.Module):
        def __init__(self):
            super().__init__()
            self.cnn = nn.Sequential(
                nn.ReflectionPad2d(1), nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4),
                nn.Dropout2d(p=0.0), nn.AdaptiveAvgPool2d((3, 3)),
            )  # fmt: skip
            self.fc = nn.Sequential(nn.Linear(36, 10), nn.PReLU(), nn.Linear(10, 5))

        def forward(self, x):
            return self.fc(torch.flatten(self.cnn(x), start_dim=1))

    def contrastive(a, b, label, margin=2.0):
        distance = F.pairwise_distance(a, b, keepdim=True)
        return torch.mean((1 - label) * distance.pow(2) + label * torch.clamp(margin - distance, min=0.0).pow(2))

    net = same(Embedder())
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    a, p, n = (pictures(torch, same, 4, 1, 8, 8) for _ in range(3))
    label = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    for _ in range(4):
        one, two, three = net(a), net(p), net(n)
        losses = [
            nn.TripletMarginLoss(margin=1.0, p=2)(one, two, three),
            contrastive(one, two, label),
            nn.CosineEmbeddingLoss(margin=0.1)(one, three, 1 - 2 * label.squeeze(1)),
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        yield from (loss.item() for loss in losses)


@program
def sim_clr(torch, same):
    """Contrastive learning without labels: two views, normalized, the other view among all others (NT-Xent)."""
    nn, F = torch.nn, torch.nn.functional
    layers = nn.Flatten(), nn.Linear(27, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 6, bias=False)
    net = same(nn.Sequential(*layers))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    images = pictures(torch, same, 5, 3, 3, 3)
    for _ in range(5):
        views = torch.cat([images.flip(-1), images + 0.1 * same(torch.randn_like(images))])
        features = F.normalize(net(views), dim=1)
        similarity = torch.matmul(features, features.T) / 0.2
        similarity = similarity.masked_fill(torch.eye(10, dtype=torch.bool), -1e9)
        labels = torch.roll(torch.arange(10), 5)
        loss = F.cross_entropy(similarity, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@program
def style_transfer(torch, same):
    """The picture is the parameter: Gram matrices and content through a fixed network, LBFGS with a closure."""
    nn, F = torch.nn, torch.nn.functional

    class Normalization(nn.Module):
        def __init__(self, mean, std):
            super().__init__()
            self.mean = mean.clone().detach().view(-1, 1, 1)
            self.std = std.clone().detach().view(-1, 1, 1)

        def forward(self, img):
            return (img - self.mean) / self.std

    def gram_matrix(input):
        a, b, c, d = input.size()
        features = input.view(a * b, c * d)
        return torch.mm(features, features.t()).div(a * b * c * d)

    cnn = same(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 8, 3, padding=1), nn.Softplus()))
    cnn.requires_grad_(False).eval()
    normalization = Normalization(torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
    content, style, picture = (pictures(torch, same, 1, 3, 8, 8) for _ in range(3))

    def features(x):
        x, found = normalization(x), []
        for layer in cnn.children():
            x = layer(x)
            found.append(x)
        return found

    targets = [gram_matrix(f).detach() for f in features(style)]
    wanted = features(content)[-1].detach()
    picture.requires_grad_(True)
    optimizer = torch.optim.LBFGS([picture], max_iter=4)
    losses = []
    for _ in range(2):

        def closure():
            with torch.no_grad():
                picture.clamp_(0, 1)
            optimizer.zero_grad()
            found = features(picture)
            style_score = sum(F.mse_loss(gram_matrix(f), t) for f, t in zip(found, targets, strict=True))
            loss = 10 * style_score + F.mse_loss(found[-1], wanted)
            loss.backward()
            losses.append(loss.item())
            return loss

        optimizer.step(closure)
    yield from losses


@program
def mobile_net(torch, same):
    """Depthwise-separable convolutions, ReLU6 and hard swish, squeeze and excitation."""
    nn, F = torch.nn, torch.nn.functional

    class InvertedResidual(nn.Module):
        def __init__(self, channels, expand):
            super().__init__()
            hidden = channels * expand
            self.conv = nn.Sequential(
                nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True),
                nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish(),
            )  # fmt: skip
            self.squeeze = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, 2, 1), nn.ReLU(), nn.Conv2d(2, hidden, 1), nn.Hardsigmoid()
            )
            self.project = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

        def forward(self, x):
            y = self.conv(x)
            return x + self.project(y * self.squeeze(y))

    net = same(
        nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), InvertedResidual(4, 2), InvertedResidual(4, 3), nn.AdaptiveMaxPool2d(1),
                      nn.Flatten(), nn.Linear(4, 3))
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, y = pictures(torch, same, 4, 3, 12, 12), torch.tensor([0, 1, 2, 1])
    for _ in range(5):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@program
def crnn_ctc(torch, same):
    """Text in pictures: convolutions, then an LSTM along the width, then CTC."""
    nn = torch.nn

    class CRNN(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.LeakyReLU(0.2), nn.MaxPool2d((2, 1)))
            self.rnn = nn.LSTM(16, 6, bidirectional=True)
            self.fc = nn.Linear(12, 5)

        def forward(self, x):
            x = self.conv(x)  # [batch, channels, height, width]
            b, c, h, w = x.size()
            x = x.reshape(b, c * h, w).permute(2, 0, 1)
            return nn.functional.log_softmax(self.fc(self.rnn(x)[0]), dim=2)

    model, criterion = same(CRNN()), nn.CTCLoss(blank=0, zero_infinity=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    images = pictures(torch, same, 3, 1, 8, 10)
    targets, target_lengths = torch.tensor([1, 2, 3, 4, 4, 1, 2]), torch.tensor([2, 4, 1])
    for _ in range(5):
        log_probs = model(images)
        input_lengths = torch.full((3,), log_probs.size(0), dtype=torch.long)
        loss = criterion(log_probs, targets, input_lengths, target_lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@program
def spatial_transformer(torch, same):
    """A network that turns and cuts its own input: affine_grid and grid_sample."""
    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.localization = nn.Sequential(nn.Conv2d(1, 4, kernel_size=5), nn.MaxPool2d(2, stride=2), nn.ReLU(True))
            self.fc_loc = nn.Sequential(nn.Linear(4 * 4 * 4, 8), nn.ReLU(True), nn.Linear(8, 3 * 2))
            self.fc_loc[2].weight.data.zero_()
            # published with the identity, where every place lies on a pixel and rounding decides the slopes
            self.fc_loc[2].bias.data.copy_(torch.tensor([0.93, 0.1, 0.02, -0.1, 0.91, 0.03], dtype=torch.float))
            self.fc = nn.Linear(144, 3)

        def forward(self, x):
            theta = self.fc_loc(self.localization(x).view(-1, 64)).view(-1, 2, 3)
            x = F.grid_sample(x, F.affine_grid(theta, x.size(), align_corners=False), align_corners=False)
            return F.log_softmax(self.fc(x.flatten(1)), dim=1)

    model = same(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = pictures(torch, same, 4, 1, 12, 12), torch.tensor([0, 1, 2, 0])
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.nll_loss(model(x), y)
        loss.backward()
        optimizer.step()
        yield loss.item()
