"""Programs that read text."""

import inspect
import math

from .registry import program


def tokens(torch, same, vocabulary, *shape):
    return same(torch.randint(0, vocabulary, shape))


@program
def nano_gpt(torch, same):
    """A GPT with its own initialisation, tied weights, parameter groups, a schedule by hand and clipping."""
    nn, F = torch.nn, torch.nn.functional
    n_layer, n_head, n_embd, block_size, vocab_size = 2, 2, 16, 8, 11

    class LayerNorm(nn.Module):
        def __init__(self, ndim, bias):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(ndim))
            self.bias = nn.Parameter(torch.zeros(ndim)) if bias else None

        def forward(self, input):
            return F.layer_norm(input, self.weight.shape, self.weight, self.bias, 1e-5)

    class CausalSelfAttention(nn.Module):
        def __init__(self, flash):
            super().__init__()
            self.c_attn = nn.Linear(n_embd, 3 * n_embd)
            self.c_proj = nn.Linear(n_embd, n_embd)
            self.attn_dropout = nn.Dropout(0.0)
            self.flash = flash
            mask = torch.tril(torch.ones(block_size, block_size)).view(1, 1, block_size, block_size)
            self.register_buffer("mask", mask)

        def forward(self, x):
            B, T, C = x.size()
            q, k, v = self.c_attn(x).split(n_embd, dim=2)
            k = k.view(B, T, n_head, C // n_head).transpose(1, 2)
            q = q.view(B, T, n_head, C // n_head).transpose(1, 2)
            v = v.view(B, T, n_head, C // n_head).transpose(1, 2)
            if self.flash:
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=True)
            else:
                att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
                att = att.masked_fill(self.mask[:, :, :T, :T] == 0, float("-inf"))
                y = self.attn_dropout(F.softmax(att, dim=-1)) @ v
            return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))

    class Block(nn.Module):
        def __init__(self, flash):
            super().__init__()
            self.ln_1 = LayerNorm(n_embd, bias=flash)
            self.attn = CausalSelfAttention(flash)
            self.ln_2 = LayerNorm(n_embd, bias=flash)
            self.mlp = nn.ModuleDict({"c_fc": nn.Linear(n_embd, 4 * n_embd), "c_proj": nn.Linear(4 * n_embd, n_embd)})

        def forward(self, x):
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp.c_proj(F.gelu(self.mlp["c_fc"](self.ln_2(x))))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.transformer = nn.ModuleDict(
                {
                    "wte": nn.Embedding(vocab_size, n_embd),
                    "wpe": nn.Embedding(block_size, n_embd),
                    "drop": nn.Dropout(0.0),
                    "h": nn.ModuleList([Block(flash=i == 0) for i in range(n_layer)]),
                    "ln_f": LayerNorm(n_embd, bias=True),
                }
            )
            self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
            self.transformer.wte.weight = self.lm_head.weight
            self.apply(self._init_weights)
            for pn, p in self.named_parameters():
                if pn.endswith("c_proj.weight"):
                    torch.nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * n_layer))

        def _init_weights(self, module):
            if isinstance(module, nn.Linear):
                torch.nn.init.normal_(module.weight, mean=0.0, std=0.02)
                if module.bias is not None:
                    torch.nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                torch.nn.init.normal_(module.weight, mean=0.0, std=0.02)

        def forward(self, idx, targets=None):
            _, t = idx.size()
            pos = torch.arange(0, t, dtype=torch.long, device=idx.device)
            x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(pos))
            for block in self.transformer.h:
                x = block(x)
            x = self.transformer.ln_f(x)
            if targets is None:
                return self.lm_head(x[:, [-1], :]), None
            logits = self.lm_head(x)
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)
            return logits, loss

        def configure_optimizers(self, weight_decay, learning_rate, betas):
            param_dict = {pn: p for pn, p in self.named_parameters() if p.requires_grad}
            groups = [
                {"params": [p for p in param_dict.values() if p.dim() >= 2], "weight_decay": weight_decay},
                {"params": [p for p in param_dict.values() if p.dim() < 2], "weight_decay": 0.0},
            ]
            fused = {"fused": False} if "fused" in inspect.signature(torch.optim.AdamW).parameters else {}
            return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, **fused)

        @torch.no_grad()
        def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None):
            for _ in range(max_new_tokens):
                logits, _ = self(idx if idx.size(1) <= block_size else idx[:, -block_size:])
                logits = logits[:, -1, :] / temperature
                v, _ = torch.topk(logits, min(top_k, logits.size(-1)))
                logits[logits < v[:, [-1]]] = -float("Inf")
                idx_next = same(torch.multinomial(F.softmax(logits, dim=-1), num_samples=1))
                idx = torch.cat((idx, idx_next), dim=1)
            return idx

    model = same(GPT())
    yield sum(p.numel() for p in model.parameters())
    optimizer = model.configure_optimizers(0.1, 1e-2, (0.9, 0.95))
    data = tokens(torch, same, vocab_size, 100)
    model.train()
    for step in range(6):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (step + 1) / 3 if step < 3 else 1e-2 * 0.5 * (1 + math.cos(math.pi * (step - 3) / 3))
        ix = same(torch.randint(len(data) - block_size, (4,)))
        x = torch.stack([data[i : i + block_size] for i in ix])
        y = torch.stack([data[i + 1 : i + 1 + block_size] for i in ix])
        y[0, 0] = -1
        _, loss = model(x, y)
        loss.backward()
        yield torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()
    model.eval()
    written = model.generate(data[None, :3], 8, temperature=0.8, top_k=4)
    yield model(written[:, -block_size:])[0].sum().item()


@program
def word_lstm(torch, same):
    """A word-level language model: LSTM, hidden state detached between pieces, SGD by hand on p.data."""
    nn = torch.nn
    ntoken, ninp, nhid, nlayers, bsz, bptt = 13, 8, 8, 2, 3, 5

    class RNNModel(nn.Module):
        def __init__(self, tie_weights):
            super().__init__()
            self.drop = nn.Dropout(0.0)
            self.encoder = nn.Embedding(ntoken, ninp)
            self.rnn = nn.LSTM(ninp, nhid, nlayers, dropout=0.0)
            self.decoder = nn.Linear(nhid, ntoken)
            if tie_weights:
                self.decoder.weight = self.encoder.weight
            self.init_weights()

        def init_weights(self):
            nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
            nn.init.zeros_(self.decoder.bias)
            self.decoder.weight.data.uniform_(-0.1, 0.1)

        def forward(self, input, hidden):
            output, hidden = self.rnn(self.drop(self.encoder(input)), hidden)
            decoded = self.decoder(self.drop(output)).view(-1, ntoken)
            return nn.functional.log_softmax(decoded, dim=1), hidden

        def init_hidden(self):
            weight = next(self.parameters())
            return weight.new_zeros(nlayers, bsz, nhid), weight.new_zeros(nlayers, bsz, nhid)

    def batchify(data):
        nbatch = data.size(0) // bsz
        return data.narrow(0, 0, nbatch * bsz).view(bsz, -1).t().contiguous()

    def repackage_hidden(h):
        return h.detach() if isinstance(h, torch.Tensor) else tuple(repackage_hidden(v) for v in h)

    source = batchify(tokens(torch, same, ntoken, 100))
    criterion = nn.NLLLoss()
    for tied in (False, True):
        model = same(RNNModel(tied))
        hidden, lr = model.init_hidden(), 2.0
        for i in range(0, source.size(0) - 1, bptt):
            seq_len = min(bptt, len(source) - 1 - i)
            data, targets = source[i : i + seq_len], source[i + 1 : i + 1 + seq_len].view(-1)
            model.zero_grad()
            hidden = repackage_hidden(hidden)
            output, hidden = model(data, hidden)
            loss = criterion(output, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            for p in model.parameters():
                p.data.add_(p.grad, alpha=-lr)
            yield loss.item()


@program
def packed_sequences(torch, same):
    """Sentences of different lengths, classified by a bidirectional LSTM on packed sequences."""
    nn = torch.nn
    rnn = nn.utils.rnn

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(20, 6, padding_idx=0)
            self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
            self.fc = nn.Linear(10, 3)

        def forward(self, text, lengths):
            packed = rnn.pack_padded_sequence(self.embedding(text), lengths, batch_first=True, enforce_sorted=False)
            packed_output, (hidden, _) = self.lstm(packed)
            output, output_lengths = rnn.pad_packed_sequence(packed_output, batch_first=True)
            assert output_lengths.tolist() == lengths.tolist()
            return self.fc(torch.cat((hidden[-2], hidden[-1]), dim=1)) + output.mean()

    model = same(Classifier())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    lengths = torch.tensor([3, 7, 1, 5])
    text = rnn.pad_sequence([same(torch.randint(1, 20, (n,))) for n in lengths.tolist()], batch_first=True)
    labels = torch.tensor([0, 2, 1, 1])
    for _ in range(6):
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(model(text, lengths), labels)
        loss.backward()
        optimizer.step()
        yield loss.item()
    yield model.embedding.weight.grad[0].abs().sum().item()


@program
def name_classifier(torch, same):
    """The character RNN made of linear layers that tutorials begin with; letters one-hot, updates by hand."""
    nn = torch.nn
    letters, hidden_size, categories = 9, 10, 4

    class RNN(nn.Module):
        def __init__(self):
            super().__init__()
            self.i2h = nn.Linear(letters + hidden_size, hidden_size)
            self.i2o = nn.Linear(letters + hidden_size, categories)
            self.softmax = nn.LogSoftmax(dim=1)

        def forward(self, input, hidden):
            combined = torch.cat((input, hidden), 1)
            return self.softmax(self.i2o(combined)), torch.tanh(self.i2h(combined))

    model, criterion = same(RNN()), nn.NLLLoss()
    for step in range(6):
        line = torch.zeros(5, 1, letters)
        for i, letter in enumerate(tokens(torch, same, letters, 5).tolist()):
            line[i][0][letter] = 1
        hidden = torch.zeros(1, hidden_size)
        model.zero_grad()
        for i in range(line.size()[0]):
            output, hidden = model(line[i], hidden)
        loss = criterion(output, torch.tensor([step % categories], dtype=torch.long))
        loss.backward()
        for p in model.parameters():
            p.data.add_(p.grad.data, alpha=-0.1)
        _, top_i = output.topk(1)
        yield loss.item()
        yield top_i[0].item()


@program
def transformer_classifier(torch, same):
    """nn.TransformerEncoder with sine positions as a buffer and a padding mask; mean over real words."""
    nn = torch.nn

    class PositionalEncoding(nn.Module):
        def __init__(self, d_model, max_len=50):
            super().__init__()
            position = torch.arange(max_len).unsqueeze(1)
            div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
            pe = torch.zeros(1, max_len, d_model)
            pe[0, :, 0::2] = torch.sin(position * div_term)
            pe[0, :, 1::2] = torch.cos(position * div_term)
            self.register_buffer("pe", pe)

        def forward(self, x):
            return x + self.pe[:, : x.size(1)]

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(15, 8)
            self.positions = PositionalEncoding(8)
            layer = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
            self.fc = nn.Linear(8, 3)

        def forward(self, x):
            padding = x == 0
            h = self.encoder(self.positions(self.embedding(x) * math.sqrt(8)), src_key_padding_mask=padding)
            real = (~padding).unsqueeze(-1)
            return self.fc((h * real).sum(1) / real.sum(1).clamp(min=1))

    model = same(Classifier())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    x = tokens(torch, same, 14, 4, 6) + 1
    x[0, 4:] = 0
    x[2, 1:] = 0
    for _ in range(6):
        loss = nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0]), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        scheduler.step()
        yield loss.item()


@program
def transformer_translation(torch, same):
    """nn.Transformer with a causal mask, padding masks and teacher forcing."""
    nn = torch.nn

    class Seq2Seq(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.target = nn.Embedding(12, 8), nn.Embedding(10, 8)
            self.transformer = nn.Transformer(8, 2, 1, 2, dim_feedforward=16, dropout=0.0)
            self.generator = nn.Linear(8, 10)
            for p in self.parameters():
                if p.dim() > 1:
                    nn.init.xavier_uniform_(p)

        def forward(self, src, tgt):
            mask = nn.Transformer.generate_square_subsequent_mask(tgt.size(0))
            hidden = self.transformer(
                self.source(src),
                self.target(tgt),
                tgt_mask=mask,
                src_key_padding_mask=(src == 1).transpose(0, 1),
                memory_key_padding_mask=(src == 1).transpose(0, 1),
            )
            return self.generator(hidden)

    model = same(Seq2Seq())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.98), eps=1e-9)
    src, tgt = tokens(torch, same, 12, 5, 3), tokens(torch, same, 10, 6, 3)
    src[0] = 2
    for _ in range(5):
        logits = model(src, tgt[:-1])
        loss = nn.CrossEntropyLoss(ignore_index=1)(logits.reshape(-1, logits.shape[-1]), tgt[1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@program
def attention_decoder(torch, same):
    """GRU encoder and decoder with additive attention, one word at a time, two optimizers."""
    nn, F = torch.nn, torch.nn.functional
    size, start = 8, 0

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(12, size)
            self.gru = nn.GRU(size, size, batch_first=True)

        def forward(self, input):
            return self.gru(self.embedding(input))

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.Wa, self.Ua, self.Va = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, 1)

        def forward(self, query, keys):
            scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys))).squeeze(2).unsqueeze(1)
            return torch.bmm(F.softmax(scores, dim=-1), keys)

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(10, size)
            self.attention = Attention()
            self.gru = nn.GRU(2 * size, size, batch_first=True)
            self.out = nn.Linear(size, 10)

        def forward(self, encoder_outputs, hidden, target, teach):
            input = torch.empty(len(target), 1, dtype=torch.long).fill_(start)
            outputs = []
            for i in range(target.size(1)):
                context = self.attention(hidden.permute(1, 0, 2), encoder_outputs)
                output, hidden = self.gru(torch.cat((self.embedding(input), context), dim=2), hidden)
                output = self.out(output)
                outputs.append(output)
                input = target[:, i].unsqueeze(1) if teach else output.topk(1)[1].squeeze(-1).detach()
            return F.log_softmax(torch.cat(outputs, dim=1), dim=-1)

    encoder, decoder = same(Encoder()), same(Decoder())
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (encoder, decoder)]
    source, target = tokens(torch, same, 12, 3, 5), tokens(torch, same, 10, 3, 4)
    for step in range(6):
        for optimizer in optimizers:
            optimizer.zero_grad()
        outputs = decoder(*encoder(source), target, teach=step % 2 == 0)
        loss = nn.NLLLoss()(outputs.view(-1, outputs.size(-1)), target.view(-1))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        yield loss.item()


@program
def word2vec(torch, same):
    """Skip-gram with negative samples drawn from unigram counts to the power 3/4."""
    nn, F = torch.nn, torch.nn.functional

    class SkipGram(nn.Module):
        def __init__(self):
            super().__init__()
            self.u = nn.Embedding(20, 6)
            self.v = nn.Embedding(20, 6)
            self.u.weight.data.uniform_(-0.5 / 6, 0.5 / 6)
            self.v.weight.data.zero_()

        def forward(self, center, context, negatives):
            u, v, n = self.u(center), self.v(context), self.v(negatives)
            score = torch.clamp(torch.sum(u * v, dim=1), max=10, min=-10)
            noise = torch.bmm(n, u.unsqueeze(2)).squeeze(2).clamp(-10, 10)
            return -(F.logsigmoid(score) + F.logsigmoid(-noise).sum(1)).mean()

    model = same(SkipGram())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    text = tokens(torch, same, 20, 60)
    noise = torch.bincount(text, minlength=20).float() ** 0.75
    for step in range(6):
        center, context = text[step * 8 : step * 8 + 8], text[step * 8 + 1 : step * 8 + 9]
        negatives = same(torch.multinomial(noise, 8 * 4, replacement=True).view(8, 4))
        loss = model(center, context, negatives)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    vectors = F.normalize(model.u.weight, dim=1)
    yield torch.mm(vectors, vectors.t()).abs().mean().item()


@program
def fast_text(torch, same):
    """Bags of words by nn.EmbeddingBag and offsets."""
    nn = torch.nn

    class TextClassifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.EmbeddingBag(20, 8, sparse=False)
            self.fc = nn.Linear(8, 4)
            self.embedding.weight.data.uniform_(-0.5, 0.5)
            self.fc.bias.data.zero_()

        def forward(self, text, offsets):
            return self.fc(self.embedding(text, offsets))

    model = same(TextClassifier())
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    lengths = [4, 1, 6, 3]
    text = tokens(torch, same, 20, sum(lengths))
    offsets = torch.tensor([0, *lengths[:-1]]).cumsum(dim=0)
    label = torch.tensor([0, 3, 1, 2])
    for _ in range(6):
        optimizer.zero_grad()
        predicted = model(text, offsets)
        loss = nn.CrossEntropyLoss()(predicted, label)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        yield loss.item()
    yield (predicted.argmax(1) == label).sum().item()
