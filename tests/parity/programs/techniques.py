"""Programs that train in unusual ways."""

import copy

from .registry import program


def classifier(torch, inputs=8, classes=4):
    nn = torch.nn
    return nn.Sequential(nn.Linear(inputs, 12), nn.ReLU(), nn.Linear(12, classes))


def batch(torch, same, inputs=8, classes=4, size=10):
    return same(torch.randn(size, inputs)), same(torch.randint(0, classes, (size,)))


@program
def distillation(torch, same):
    """A student learns from the teacher's softened outputs, and learning rates fall when the loss does not."""
    F = torch.nn.functional
    teacher, student = same(classifier(torch)).eval(), same(classifier(torch))
    optimizer = torch.optim.Adam(student.parameters(), lr=0.2)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=0)
    x, y = batch(torch, same)
    T, alpha = 4.0, 0.7
    for _ in range(6):
        with torch.no_grad():
            wanted = teacher(x)
        logits = student(x)
        soft = torch.nn.KLDivLoss(reduction="batchmean")(F.log_softmax(logits / T, dim=1), F.softmax(wanted / T, dim=1))
        loss = alpha * T * T * soft + (1.0 - alpha) * F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss.item())
        yield loss.item()
        yield optimizer.param_groups[0]["lr"]


@program
def mixup(torch, same):
    """Mixed pairs of samples, both losses; then the same with soft targets and label smoothing."""
    nn, F = torch.nn, torch.nn.functional
    net = same(classifier(torch))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    x, y = batch(torch, same)
    for lam in (0.3, 0.8, 0.5):
        index = same(torch.randperm(x.size(0)))
        mixed = lam * x + (1 - lam) * x[index, :]
        criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
        outputs = net(mixed)
        loss = lam * criterion(outputs, y) + (1 - lam) * criterion(outputs, y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
        one_hot = F.one_hot(y, num_classes=4).float()
        soft = one_hot.mul(lam).add(one_hot[index], alpha=1 - lam)
        loss = torch.sum(-soft * F.log_softmax(net(mixed), dim=-1), dim=-1).mean()
        yield loss.item() - nn.CrossEntropyLoss()(net(mixed), soft).item() + 1
        yield loss.item()


@program
def ema_of_weights(torch, same):
    """An exponential moving average kept by hand in a dictionary, swapped in for evaluation, and by swa_utils."""
    F = torch.nn.functional
    model = same(classifier(torch))
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.7))
    shadow = {name: p.data.clone() for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    x, y = batch(torch, same)
    for _ in range(5):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, p in model.named_parameters():
            shadow[name] = (1.0 - 0.7) * p.data + 0.7 * shadow[name]
        averaged.update_parameters(model)
        yield loss.item()
    backup = {name: p.data for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.data = shadow[name]
    yield F.cross_entropy(model(x), y).item()
    for name, p in model.named_parameters():
        p.data = backup[name]
    yield F.cross_entropy(model(x), y).item()
    yield F.cross_entropy(averaged(x), y).item()


@program
def gradient_accumulation(torch, same):
    """Small batches, one step for several of them, clipping, a checkpoint of everything and going on from it."""
    F = torch.nn.functional

    def make():
        model = classifier(torch)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
        return model, optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=8)

    model, optimizer, scheduler = make()
    same(model)
    x, y = batch(torch, same, size=12)
    for step in range(6):
        if step == 3:
            saved = copy.deepcopy({
                "model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()
            })  # fmt: skip
            model, optimizer, scheduler = make()
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            scheduler.load_state_dict(saved["scheduler"])
        for xs, ys in zip(x.chunk(4), y.chunk(4), strict=True):
            loss = F.cross_entropy(model(xs), ys) / 4
            loss.backward()
        yield torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.5).item()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        yield scheduler.get_last_lr()[0]
    yield F.cross_entropy(model(x), y).item()


@program
def adversarial(torch, same):
    """FGSM and projected gradient descent: gradients with respect to the input, by backward and by grad."""
    nn, F = torch.nn, torch.nn.functional
    model = same(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))).eval()
    data, target = same(torch.rand(5, 1, 6, 6)), same(torch.randint(0, 4, (5,)))
    data.requires_grad = True
    loss = F.nll_loss(F.log_softmax(model(data), dim=1), target)
    model.zero_grad()
    loss.backward()
    perturbed = torch.clamp(data + 0.1 * data.grad.data.sign(), 0, 1)
    yield loss.item()
    yield F.cross_entropy(model(perturbed), target).item()
    images = data.detach()
    adv = torch.clamp(images + same(torch.empty_like(images).uniform_(-0.1, 0.1)), min=0, max=1).detach()
    for _ in range(4):
        adv.requires_grad_()
        cost = nn.CrossEntropyLoss()(model(adv), target)
        grad = torch.autograd.grad(cost, adv, retain_graph=False, create_graph=False)[0]
        adv = adv.detach() + 0.03 * grad.sign()
        delta = torch.clamp(adv - images, min=-0.1, max=0.1)
        adv = torch.clamp(images + delta, min=0, max=1).detach()
        yield cost.item()


@program
def maml(torch, same):
    """Learning to learn: an inner step on each task by functional_call, the outer gradient through it."""
    nn = torch.nn
    functional_call = torch.func.functional_call
    model = same(nn.Sequential(nn.Linear(1, 10), nn.Tanh(), nn.Linear(10, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x = torch.linspace(-2, 2, 8).view(-1, 1)
    for _ in range(4):
        outer = 0.0
        for shift in same(torch.rand(3)).tolist():
            y = torch.sin(x + shift)
            params = dict(model.named_parameters())
            for _ in range(2):
                inner = nn.functional.mse_loss(functional_call(model, params, (x[::2],)), y[::2])
                grads = torch.autograd.grad(inner, tuple(params.values()), create_graph=True)
                params = {n: p - 0.1 * g for (n, p), g in zip(params.items(), grads, strict=True)}
            outer = outer + nn.functional.mse_loss(functional_call(model, params, (x[1::2],)), y[1::2])
        optimizer.zero_grad()
        outer.backward()
        optimizer.step()
        yield outer.item()


@program
def domain_adversarial(torch, same):
    """Gradient reversal by a Function of one's own, with a growing factor."""
    nn, F = torch.nn, torch.nn.functional

    class ReverseLayer(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, alpha):
            ctx.alpha = alpha
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad_output):
            return grad_output.neg() * ctx.alpha, None

    features = same(nn.Sequential(nn.Linear(8, 6), nn.ELU()))
    label_head, domain_head = same(nn.Linear(6, 4)), same(nn.Linear(6, 2))
    modules = nn.ModuleList([features, label_head, domain_head])
    optimizer = torch.optim.SGD(modules.parameters(), lr=0.1, momentum=0.9)
    (x, y), (other, _) = batch(torch, same), batch(torch, same)
    for step in range(5):
        alpha = step / 5
        domains = torch.cat([torch.zeros(10), torch.ones(10)]).long()
        both = features(torch.cat([x, other]))
        loss = F.cross_entropy(label_head(both[:10]), y)
        loss = loss + F.cross_entropy(domain_head(ReverseLayer.apply(both, alpha)), domains)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@program
def straight_through(torch, same):
    """A network of binary weights: sign forward, clipped identity backward; clipping the weights afterwards."""
    nn, F = torch.nn, torch.nn.functional

    class Binarize(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input):
            ctx.save_for_backward(input)
            return torch.where(input >= 0, torch.ones_like(input), -torch.ones_like(input))

        @staticmethod
        def backward(ctx, grad_output):
            (input,) = ctx.saved_tensors
            grad_input = grad_output.clone()
            grad_input[input.abs() > 1] = 0
            return grad_input

    class BinaryLinear(nn.Linear):
        def forward(self, input):
            return F.linear(input, Binarize.apply(self.weight), self.bias)

    net = same(nn.Sequential(BinaryLinear(8, 12), nn.BatchNorm1d(12), nn.Hardtanh(inplace=True), BinaryLinear(12, 4)))
    # of gradients that cancel up to rounding, a smaller eps would make whole steps, in a direction of chance
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, eps=1e-4)
    x, y = batch(torch, same)
    for _ in range(6):
        loss = nn.MultiMarginLoss()(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, BinaryLinear):
                    module.weight.clamp_(-1, 1)
        yield loss.item()


@program
def fine_tuning(torch, same):
    """A body with frozen weights loaded in part, a new head, features caught by a hook, rates by group."""
    nn, F = torch.nn, torch.nn.functional
    body = same(nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 5)))
    model = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 5))
    kept = {k: v for k, v in body.state_dict().items() if not k.startswith("3.")}
    result = model.load_state_dict(kept, strict=False)
    yield len(result.missing_keys)
    for param in model.parameters():
        param.requires_grad = False
    model[3] = same(nn.Linear(model[3].in_features, 4))
    for param in model[1].parameters():
        param.requires_grad_(True)
    caught = {}
    handle = model[2].register_forward_hook(lambda module, input, output: caught.update(features=output.detach()))
    optimizer = torch.optim.SGD(
        [{"params": model[1].parameters(), "lr": 1e-2}, {"params": model[3].parameters()}], lr=0.1, momentum=0.9
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 4], gamma=0.1)
    x, y = batch(torch, same)
    for _ in range(5):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield loss.item()
        yield caught["features"].mean().item()
    handle.remove()
    yield sum(p.numel() for p in model.parameters() if p.requires_grad)
    yield float(model[0].weight.grad is None)


@program
def low_rank_adaptation(torch, same):
    """LoRA: frozen linear layers replaced by modules that add a product of two thin matrices; then merged."""
    nn, F = torch.nn, torch.nn.functional

    class LoRALinear(nn.Module):
        def __init__(self, linear, rank, alpha):
            super().__init__()
            self.linear, self.scaling = linear, alpha / rank
            self.lora_A = nn.Parameter(torch.zeros(rank, linear.in_features))
            self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank))
            nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)

        def forward(self, x):
            return self.linear(x) + (x @ self.lora_A.T @ self.lora_B.T) * self.scaling

    model = classifier(torch)
    for p in model.parameters():
        p.requires_grad_(False)
    for name, child in list(model.named_children()):
        if isinstance(child, nn.Linear):
            setattr(model, name, LoRALinear(child, rank=2, alpha=4))
    same(model)
    optimizer = torch.optim.AdamW(filter(lambda p: p.requires_grad, model.parameters()), lr=1e-2)
    x, y = batch(torch, same)
    for _ in range(5):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    with torch.no_grad():
        for name, child in list(model.named_children()):
            if isinstance(child, LoRALinear):
                child.linear.weight += child.scaling * child.lora_B @ child.lora_A
                setattr(model, name, child.linear)
        yield F.cross_entropy(model(x), y).item()


@program
def spectral_normalization(torch, same):
    """A critic with spectral_norm and a hinge loss, in evaluation too."""
    nn, F = torch.nn, torch.nn.functional
    torch.manual_seed(0)
    norm = torch.nn.utils.parametrizations.spectral_norm
    critic = same(nn.Sequential(norm(nn.Conv2d(1, 3, 3)), nn.LeakyReLU(0.1), nn.Flatten(), norm(nn.Linear(48, 1))))
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    real, fake = same(torch.rand(4, 1, 6, 6)), same(torch.randn(4, 1, 6, 6))
    for _ in range(5):
        loss = F.relu(1.0 - critic(real)).mean() + F.relu(1.0 + critic(fake)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    yield critic.eval()(real).mean().item()


@program
def recomputation(torch, same):
    """Activations thrown away and computed again in backward (checkpoint), beside the same without it."""
    nn, F = torch.nn, torch.nn.functional
    checkpoint = torch.utils.checkpoint.checkpoint
    first, second, head = same(nn.Linear(8, 8)), same(nn.Linear(8, 8)), same(nn.Linear(8, 4))
    optimizer = torch.optim.SGD([p for m in (first, second, head) for p in m.parameters()], lr=0.1)
    x, y = batch(torch, same)
    for step in range(4):
        h = x
        for layer in (first, second):
            h = checkpoint(lambda h, layer=layer: torch.tanh(layer(h)), h, use_reentrant=False) if step % 2 else (
                torch.tanh(layer(h)))  # fmt: skip
        loss = F.cross_entropy(head(h), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@program
def per_sample_gradients(torch, same):
    """Differentially private SGD: grad under vmap, each sample's gradient clipped, noise added."""
    func = torch.func
    model = same(classifier(torch))
    params = {k: v.detach() for k, v in model.named_parameters()}
    x, y = batch(torch, same)

    def loss_of(params, sample, target):
        logits = func.functional_call(model, params, (sample.unsqueeze(0),))
        return torch.nn.functional.cross_entropy(logits, target.unsqueeze(0))

    for _ in range(3):
        grads = func.vmap(func.grad(loss_of), in_dims=(None, 0, 0))(params, x, y)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
        factor = (0.5 / (norms + 1e-6)).clamp(max=1.0)
        params = {
            k: p - 0.5 * (torch.einsum("n,n...->...", factor, grads[k]) / 10 + 0.01 * same(torch.randn_like(p)))
            for k, p in params.items()
        }
        yield norms.sum().item()
    yield loss_of(params, x[0], y[0]).item()
