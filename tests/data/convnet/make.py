"""Makes mobile.onnx and sample.npz: a small convolution network (depthwise and pointwise layers, a residual, a classifier) whose batch norms, folded into the
weights by the exporter, have uneven gammas, as trained MobileNets do. Needs torch, onnx and numpy."""
import io, numpy as np, onnx, torch
from torch import nn

torch.manual_seed(3)


def block(cin, cout, k, stride=1, groups=1, relu=True):
    bn = nn.BatchNorm2d(cout)
    with torch.no_grad():
        bn.weight.copy_(torch.exp(1.2 * torch.randn(cout)))
        bn.bias.copy_(0.8 * torch.rand(cout) + 0.4 * torch.randn(cout).abs())
        bn.running_mean.copy_(0.2 * torch.randn(cout))
        bn.running_var.copy_(torch.rand(cout) + 0.5)
    return nn.Sequential(nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False), bn, *([nn.ReLU()] if relu else []))


class Mobile(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = block(3, 16, 3, 2)
        self.depth1, self.point1 = block(16, 16, 3, groups=16), block(16, 32, 1)
        self.depth2, self.point2 = block(32, 32, 3, groups=32), block(32, 32, 1)
        self.squeeze, self.expand = block(32, 16, 1), block(16, 32, 1, relu=False)
        self.depth3, self.point3 = block(32, 32, 3, 2, groups=32), block(32, 48, 1)
        self.head = nn.Linear(48, 24)

    def forward(self, x):
        x = self.point2(self.depth2(self.point1(self.depth1(self.stem(x)))))
        x = torch.relu(x + self.expand(self.squeeze(x)))
        return self.head(self.point3(self.depth3(x)).mean((2, 3)))


m = Mobile().eval()
x = torch.round(torch.randn(12, 3, 32, 32) * 4) / 4
with torch.no_grad():  # running statistics as they are, so that activations stay in range
    m.train(); [m(x) for _ in range(40)]; m.eval()
buf = io.BytesIO()
torch.onnx.export(m, (x[:1],), buf, input_names=["image"], output_names=["scores"], opset_version=13, dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}}, dynamo=False)
buf.seek(0)


def unbalance(model):
    """Scales channels between layers by factors up to a few hundred: the same function, and what training with batch norms can leave behind."""
    rng = np.random.default_rng(5)
    inits = {i.name: i for i in model.graph.initializer}
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    for a, b in ((0, 1), (1, 2), (2, 3), (3, 4), (5, 6), (7, 8)):
        first, second = convs[a], convs[b]
        s = np.exp(1.2 * rng.standard_normal(inits[first.input[1]].dims[0])).astype(np.float32)
        for name, shape in ((first.input[1], (-1, 1, 1, 1)), (first.input[2], (-1,))):
            inits[name].CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(inits[name]) * s.reshape(shape), name))
        w = onnx.numpy_helper.to_array(inits[second.input[1]])
        shape = (-1, 1, 1, 1) if w.shape[1] == 1 else (1, -1, 1, 1)
        inits[second.input[1]].CopyFrom(onnx.numpy_helper.from_array((w / s.reshape(shape)).astype(np.float32), second.input[1]))
    return model


onnx.save(unbalance(onnx.load(buf)), "mobile.onnx")
np.savez_compressed("sample.npz", image=x.numpy())
